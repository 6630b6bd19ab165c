"""The step that collects the teacher's rationales: sample in rounds, verify, count outcomes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from cotpipe.data.rows import (
    Problem,
    Reject,
    TeacherOutcome,
    TeacherRationale,
    read_rows,
    write_rows,
)
from cotpipe.engines.base import Engine, Model, Request, Sampling
from cotpipe.engines.choice import open_engine
from cotpipe.engines.reference_engine import ReferenceEngine
from cotpipe.extensions import is_own, own_identity
from cotpipe.randomness import named_seed
from cotpipe.rationale.prompts import question_prompt, restructuring_prompt
from cotpipe.recipe.model import Recipe
from cotpipe.settings import Settings
from cotpipe.steps.generate import SharedEngine, generate
from cotpipe.steps.rejects import refuse_too_many, write_with_rejects
from cotpipe.steps.step import Step, Work
from cotpipe.steps.student import folder_identity
from cotpipe.steps.verify import WITHOUT_STEPS, Judged, judge, outcomes, row_of

_JUDGED_BY = ("num_samples", "min_steps", "max_steps", "max_rejected_share")
_ASKED_WITH = (
    "system_prompt", "max_rounds", "restructure", "temperature", "top_p", "max_new_tokens", "stop",
)  # fmt: skip


def teacher_identity(recipe: Recipe) -> dict[str, Any]:
    """Everything about the teacher that determines its answers; a local directory by its content.

    Excludes the engine, unless that is user code. Raises `UserError` if a directory holds no model.
    """
    teacher = recipe.teacher
    if teacher.engine == "reference":
        return {"engine": "reference"}
    assert teacher.model, "validated by the recipe"
    own = is_own(teacher.engine)
    is_named = own or teacher.engine == "openai"
    model = teacher.model if is_named else folder_identity(teacher.model, "teacher.model")
    return ({"engine": own_identity(teacher.engine)} if own else {}) | {
        "model": model,
        "revision": teacher.revision,
        "adapter": folder_identity(teacher.adapter, "teacher.adapter") if teacher.adapter else None,
        "chat_template": teacher.chat_template,
        "template_options": teacher.template_options,
    }


def collect_rationales(work: Work) -> dict[str, int]:
    """Write `rationales.parquet`, `rejects.parquet`, and the outcomes in `teacher.parquet`."""
    teacher = work.recipe.teacher
    problems = list(read_rows(work.input("problems", "problems.parquet"), Problem))
    judged = (
        _replayed(work, problems) if teacher.engine == "reference" else list(_asked(work, problems))
    )
    answered = {one.problem.problem_id for one in judged}
    rejects = [
        Reject(problem.problem_id, "no rationale", "the teacher has none for this problem")
        for problem in problems
        if problem.problem_id not in answered
    ] + [
        Reject(one.problem.problem_id, one.reason, one.answer.text[:2000])
        for one in judged
        if one.reason
    ]
    rationales = [row_of(one) for one in judged if not one.reason]
    refuse_too_many(
        rejects, len(rationales), teacher.max_rejected_share, "teacher.max_rejected_share"
    )
    write_rows(work.output / "teacher.parquet", TeacherOutcome, outcomes(judged))
    counts = write_with_rejects(work.output, TeacherRationale, "rationales", rationales, rejects)
    return counts | dict(Counter(one.reason for one in rejects).most_common())


def _replayed(work: Work, problems: Sequence[Problem]) -> list[Judged]:
    """The dataset's own rationales, verified."""
    teacher = work.recipe.teacher
    requests = [
        Request(problem.problem_id, question_prompt(problem.question)) for problem in problems
    ]
    sampling = Sampling(teacher.num_samples, 0.0, 0, 0)
    answers = ReferenceEngine(problems).generate(requests, sampling, work.progress)
    return [
        judge(problem, number, sample, work.recipe)
        for problem, samples in zip(problems, answers, strict=True)
        for number, sample in enumerate(samples)
    ]


def _asked(work: Work, problems: Sequence[Problem]) -> Iterator[Judged]:
    """A model's answers: first to all problems, then to those without a verified rationale."""
    teacher = work.recipe.teacher
    first_sample, pending = 0, list(problems)
    with SharedEngine(lambda: _open(work)) as engine:
        for number in range(teacher.max_rounds):
            num_samples = teacher.num_samples * 2**number
            judged = _ask_round(work, engine, pending, number, num_samples, first_sample)
            yield from judged
            verified = {one.problem.problem_id for one in judged if not one.reason}
            if teacher.restructure:
                again = _restructure(work, engine, judged, verified, number)
                yield from again
                verified |= {one.problem.problem_id for one in again if not one.reason}
            pending = [problem for problem in pending if problem.problem_id not in verified]
            first_sample += num_samples
            if not pending:
                return


def _open(work: Work) -> AbstractContextManager[Engine]:
    teacher = work.recipe.teacher
    assert teacher.engine != "reference"
    assert teacher.model, "validated by the recipe"
    options = teacher.template_options
    model = Model(teacher.model, teacher.revision, teacher.adapter, teacher.chat_template, options)
    return open_engine(teacher.engine, model, work.settings, work.progress.note)


def _ask_round(
    work: Work,
    engine: SharedEngine,
    problems: Sequence[Problem],
    number: int,
    num_samples: int,
    first_sample: int,
) -> list[Judged]:
    teacher = work.recipe.teacher
    requests = [
        Request(problem.problem_id, question_prompt(problem.question, teacher.system_prompt))
        for problem in problems
    ]
    sampling = _sampling(work.recipe, num_samples, "teacher", number)
    answers = generate(work, engine, teacher_identity(work.recipe), requests, sampling)
    return [
        judge(problem, first_sample + index, sample, work.recipe)
        for problem, samples in zip(problems, answers, strict=True)
        for index, sample in enumerate(samples)
    ]


def _restructure(
    work: Work, engine: SharedEngine, judged: Sequence[Judged], verified: set[str], number: int
) -> list[Judged]:
    """Have one correct answer without steps rewritten, per problem not yet verified."""
    chosen: dict[str, Judged] = {}
    for one in judged:
        if one.reason in WITHOUT_STEPS and one.problem.problem_id not in verified:
            chosen.setdefault(one.problem.problem_id, one)
    requests = [
        Request(
            key, restructuring_prompt(one.problem.question, one.answer.text, one.problem.answer)
        )
        for key, one in chosen.items()
    ]
    sampling = _sampling(work.recipe, 1, "restructure", number)
    answers = generate(work, engine, teacher_identity(work.recipe), requests, sampling)
    return [
        judge(one.problem, one.sample, samples[0], work.recipe, restructured=True)
        for one, samples in zip(chosen.values(), answers, strict=True)
    ]


def _sampling(recipe: Recipe, num_samples: int, purpose: str, number: int) -> Sampling:
    teacher, seed = recipe.teacher, named_seed(recipe.seed, purpose, number)
    return Sampling(
        num_samples, teacher.temperature, teacher.max_new_tokens, seed, teacher.top_p, teacher.stop
    )


def _fields(recipe: Recipe) -> dict[str, Any]:
    """The recipe fields that count; sampling parameters only if a model is queried."""
    is_asked = recipe.teacher.engine != "reference"
    names = (*_JUDGED_BY, *(_ASKED_WITH if is_asked else ()))
    fields = recipe.fields("seed", "problems.answers", *(f"teacher.{name}" for name in names))
    return fields | {"teacher": teacher_identity(recipe)}


def _gpus(recipe: Recipe, settings: Settings) -> int:
    """0 if the dataset or a server answers."""
    asked_here = recipe.teacher.engine not in ("reference", "openai")
    return settings.tensor_parallel if asked_here else 0


STEP = Step("rationales", 2, ("problems",), _fields, collect_rationales, gpus=_gpus)
