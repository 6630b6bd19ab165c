"""The step that collects the teacher's rationales: sample in rounds, verify, count outcomes.

Answers stream from their shards through verification into the tables, a shard at a time, so memory
holds the questions but never all answers.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cotpipe.data.problems.stored import PROBLEMS
from cotpipe.data.rows import (
    Generation,
    Problem,
    Reject,
    RowsWriter,
    TeacherOutcome,
    TeacherRationale,
    read_range,
    read_rows,
    write_rows,
)
from cotpipe.engines.base import Request, Sampling
from cotpipe.engines.reference_engine import ReferenceEngine
from cotpipe.progress import Silent
from cotpipe.rationale.prompts import question_prompt, restructuring_prompt
from cotpipe.recipe.model import Recipe
from cotpipe.steps.generate import SharedEngine, generate
from cotpipe.steps.rejects import refuse_too_many, write_with_rejects
from cotpipe.steps.step import Step, Work
from cotpipe.steps.teacher import (
    gpus_of_teacher,
    source_of_teacher,
    teacher_identity,
    teacher_sampling,
)
from cotpipe.steps.verify import PROMPT_TOO_LONG, WITHOUT_STEPS, Judged, Outcomes, judge, row_of

_JUDGED_BY = ("num_samples", "min_steps", "max_steps", "max_rejected_share")
_ASKED_WITH = (
    "system_prompt", "max_rounds", "restructure", "temperature", "top_p", "max_new_tokens", "stop",
)  # fmt: skip
_WITHOUT_STEPS_PER_GROUP = 500  # they are read by the shard


def collect_rationales(work: Work) -> dict[str, int]:
    """Write `rationales.parquet`, `rejects.parquet`, and the outcomes in `teacher.parquet`."""
    teacher, outcomes = work.recipe.teacher, Outcomes()
    judged = _replayed(work) if teacher.engine == "reference" else _asked(work)
    found = write_with_rejects(
        work.output, TeacherRationale, "rationales", _rows_of(judged, outcomes)
    )
    refuse_too_many(found, teacher.max_rejected_share, "teacher.max_rejected_share")
    write_rows(work.output / "teacher.parquet", TeacherOutcome, outcomes.rows())
    return found.counts | dict(found.reasons.most_common())


def _rows_of(
    judged: Iterable[Judged | Reject], outcomes: Outcomes
) -> Iterator[TeacherRationale | Reject]:
    """The rows of answers, which are counted on the way."""
    for one in judged:
        if isinstance(one, Reject):
            yield one
            continue
        outcomes.count(one)
        yield row_of(one)


def _replayed(work: Work) -> Iterator[Judged | Reject]:
    """The dataset's own rationales, verified."""
    sampling = Sampling(work.recipe.teacher.num_samples, 0.0, 0, 0)
    for problem in read_rows(work.input("problems", PROBLEMS), Problem):
        request = Request(problem.problem_id, [])
        (samples,) = ReferenceEngine([problem]).generate([request], sampling, Silent())
        for number, sample in enumerate(samples):
            yield judge(problem, number, sample, work.recipe)
        if not samples:
            yield Reject(
                problem.problem_id, "no rationale", "the teacher has none for this problem"
            )


class _Questions:
    """The problems in memory, as an Arrow table without their rationales."""

    def __init__(self, path: Path) -> None:
        table = pq.read_table(path, columns=["problem_id", "question", "answer"])
        self._table = table.combine_chunks()  # else, every `take` would combine them

    def __len__(self) -> int:
        return len(self._table)

    def ids(self, positions: Sequence[int]) -> list[str]:
        ids = self._table["problem_id"].take(pa.array(positions, pa.int64()))
        return [str(one) for one in ids.to_pylist()]

    def at(self, positions: Sequence[int]) -> list[Problem]:
        rows = self._table.take(pa.array(positions, pa.int64())).to_pylist()
        return [Problem(**row, rationales=[]) for row in rows]


def _asked(work: Work) -> Iterator[Judged]:
    """A model's answers: first to all problems, then to those without a verified rationale."""
    teacher = work.recipe.teacher
    questions = _Questions(work.input("problems", PROBLEMS))
    pending, first_sample = list(range(len(questions))), 0
    with (
        SharedEngine(source_of_teacher(work), work.progress.note) as engine,
        tempfile.TemporaryDirectory(dir=work.output) as folder,
    ):
        for number in range(teacher.max_rounds):
            asking = _Round(work, engine, questions, number, Path(folder))
            yield from asking.sample(pending, first_sample)
            if teacher.restructure:
                yield from asking.restructure()
            pending = [position for position in pending if position not in asking.done]
            first_sample += asking.num_samples
            if not pending:
                return


class _Round:
    """One round of asking: new samples, then right answers without steps written again in steps."""

    def __init__(
        self, work: Work, engine: SharedEngine, questions: _Questions, number: int, folder: Path
    ) -> None:
        self.num_samples = work.recipe.teacher.num_samples * 2**number
        self.done: set[int] = set()
        """Positions of the problems with a verified rationale, or that cannot be asked."""
        self._work, self._engine, self._questions = work, engine, questions
        self._number, self._identity = number, teacher_identity(work.recipe)
        self._without_steps = folder / f"without-steps-{number}.parquet"
        self._to_restructure: list[tuple[int, int]] = []  # position and sample of each row there

    def sample(self, pending: Sequence[int], first_sample: int) -> Iterator[Judged]:
        """The judged answers to the pending problems, one problem after the other."""
        prompt, recipe = self._work.recipe.teacher_instruction, self._work.recipe

        def requests(numbers: Sequence[int]) -> list[Request]:
            asked = self._questions.at([pending[number] for number in numbers])
            return [Request(one.problem_id, question_prompt(one.question, prompt)) for one in asked]

        sampling = teacher_sampling(recipe, self.num_samples, "teacher", self._number)
        ids = self._questions.ids(pending)
        with RowsWriter(self._without_steps, Generation, _WITHOUT_STEPS_PER_GROUP) as kept:
            for numbers, answers in generate(
                self._work, self._engine, self._identity, ids, requests, sampling
            ):
                positions = [pending[number] for number in numbers]
                problems = self._questions.at(positions)
                for position, problem, samples in zip(positions, problems, answers, strict=True):
                    judged = [
                        judge(problem, first_sample + index, sample, recipe)
                        for index, sample in enumerate(samples)
                    ]
                    self._settle(position, judged, kept)
                    yield from judged

    def _settle(self, position: int, judged: list[Judged], kept: RowsWriter[Generation]) -> None:
        """Whether a problem is done, and if not, which of its answers may be restructured."""
        if any(one.reason in (None, PROMPT_TOO_LONG) for one in judged):
            self.done.add(position)
            return
        if not self._work.recipe.teacher.restructure:
            return
        for one in judged:
            if one.reason in WITHOUT_STEPS:
                answer = one.answer
                kept.add(
                    Generation(
                        one.problem.problem_id, one.sample, answer.text, "", answer.num_tokens,
                        answer.truncated, "",
                    )
                )  # fmt: skip
                self._to_restructure.append((position, one.sample))
                return

    def restructure(self) -> Iterator[Judged]:
        """One right answer without steps, rewritten, per problem that is not done."""
        chosen, recipe = self._to_restructure, self._work.recipe

        def requests(numbers: Sequence[int]) -> list[Request]:
            # Both are in the order of the ids' hashes, so a shard is a range of the table.
            start, stop = numbers[0], numbers[-1] + 1
            assert list(numbers) == list(range(start, stop))
            problems = self._questions.at([chosen[number][0] for number in numbers])
            rows = read_range(self._without_steps, Generation, start, stop)
            return [
                Request(
                    one.problem_id,
                    restructuring_prompt(one.question, row.text, one.answer, recipe.instruction),
                )
                for one, row in zip(problems, rows, strict=True)
            ]

        sampling = teacher_sampling(recipe, 1, "restructure", self._number)
        ids = self._questions.ids([position for position, _ in chosen])
        for numbers, answers in generate(
            self._work, self._engine, self._identity, ids, requests, sampling
        ):
            problems = self._questions.at([chosen[number][0] for number in numbers])
            for number, problem, samples in zip(numbers, problems, answers, strict=True):
                position, sample = chosen[number]
                judged = judge(problem, sample, samples[0], recipe, restructured=True)
                if not judged.reason:
                    self.done.add(position)
                yield judged


def _fields(recipe: Recipe) -> dict[str, Any]:
    """The recipe fields that count; sampling parameters only if a model is queried."""
    is_asked = recipe.teacher.engine != "reference"
    names = (*_JUDGED_BY, *(_ASKED_WITH if is_asked else ()))
    fields = recipe.fields("seed", "problems.answers", *(f"teacher.{name}" for name in names))
    return fields | {"teacher": teacher_identity(recipe)}


STEP = Step("rationales", 2, ("problems",), _fields, collect_rationales, gpus=gpus_of_teacher)
