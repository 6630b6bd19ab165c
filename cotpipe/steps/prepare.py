"""Prepare: read the problems, collect and verify the teacher's rationales, choose one each, split once."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import duckdb

from cotpipe.answers import answers_match
from cotpipe.config import SplitShares, Teacher
from cotpipe.engines.base import Request, Sampling
from cotpipe.engines.reference import ReferenceEngine
from cotpipe.errors import UserError
from cotpipe.lengths import count_words
from cotpipe.problems import read_problems
from cotpipe.prompts import question_prompt
from cotpipe.randomness import named_random, named_seed
from cotpipe.rationale import Rationale, format_rationale, parse_rationale
from cotpipe.rows import Lesson, Problem, Reject, Row, TeacherRationale, read_rows, write_rows
from cotpipe.splits import near_duplicates, position_of, split_at
from cotpipe.steps.step import Work


def collect_problems(work: Work) -> dict[str, int]:
    """Write `problems.parquet` and `rejects.parquet` from the source."""
    section = work.recipe.problems
    problems: list[Problem] = []
    rejects: list[Reject] = []
    for row in read_problems(section.source, work.recipe.seed):
        if isinstance(row, Problem):
            problems.append(row)
        else:
            rejects.append(row)
    _refuse_too_many(rejects, len(problems), section.max_rejected_share, "problems.max_rejected_share")
    return _write(work.output, Problem, "problems", problems, rejects)


def collect_rationales(work: Work) -> dict[str, int]:
    """Ask the teacher, verify what it says, write `rationales.parquet` and `rejects.parquet`."""
    teacher, seed = work.recipe.teacher, work.recipe.seed
    problems = list(read_rows(work.input("problems", "problems.parquet"), Problem))
    requests = [Request(problem.problem_id, question_prompt(problem.question)) for problem in problems]
    sampling = Sampling(teacher.num_samples, 0.0, 0, named_seed(seed, "teacher"))
    answers = ReferenceEngine(problems).generate(requests, sampling, lambda done, total: work.report(done, total, {}))
    rationales: list[TeacherRationale] = []
    rejects: list[Reject] = []
    for problem, samples in zip(problems, answers, strict=True):
        if not samples:
            rejects.append(Reject(problem.problem_id, "no rationale", "the teacher has none for this problem"))
        for number, sample in enumerate(samples):
            rationale = parse_rationale(sample.text)
            if reason := _reason_to_reject(rationale, problem.answer, teacher, sample.truncated):
                rejects.append(Reject(problem.problem_id, reason, sample.text[:2000]))
                continue
            text = format_rationale(rationale.steps, problem.answer)
            rationales.append(
                TeacherRationale(problem.problem_id, number, rationale.steps, problem.answer, count_words(text))
            )
    _refuse_too_many(rejects, len(rationales), teacher.max_rejected_share, "teacher.max_rejected_share")
    return _write(work.output, TeacherRationale, "rationales", rationales, rejects)


def plan_lessons(work: Work) -> dict[str, int]:
    """Choose a rationale per problem and split the problems: `lessons.parquet`, in each split's own order.

    Training problems whose question nearly repeats a held-out one go to `rejects.parquet`.
    """
    section = work.recipe.problems
    chosen = _choose(work.input("rationales", "rationales.parquet"), work.recipe.teacher.choice, work.recipe.seed)
    lessons = sorted(
        (
            _lesson(problem, chosen.get(problem.problem_id), section.splits)
            for problem in read_rows(work.input("problems", "problems.parquet"), Problem)
        ),
        key=lambda lesson: (lesson.position, lesson.problem_id),
    )
    held_out = [lesson.question for lesson in lessons if lesson.split in ("validation", "test")]
    training = [
        (lesson.problem_id, lesson.question) for lesson in lessons if lesson.split not in ("validation", "test")
    ]
    repeats = near_duplicates(training, held_out, section.near_duplicate)
    rejects = [Reject(problem_id, "nearly a held-out question", text) for problem_id, text in sorted(repeats.items())]
    kept = [lesson for lesson in lessons if lesson.problem_id not in repeats]
    counts = _write(work.output, Lesson, "lessons", kept, rejects)
    return counts | {f"{split} problems": count for split, count in sorted(Counter(row.split for row in kept).items())}


def _reason_to_reject(rationale: Rationale, gold: str, teacher: Teacher, truncated: bool) -> str | None:
    if truncated:
        return "truncated"
    if rationale.answer is None:
        return "no answer"
    if not answers_match(rationale.answer, gold):
        return "wrong answer"
    if len(rationale.steps) < teacher.min_steps:
        return "too few steps"
    if len(rationale.steps) > teacher.max_steps:
        return "too many steps"
    if max(Counter(rationale.steps).values()) > max(2, len(rationale.steps) // 2):
        return "repeats itself"
    return None


def _choose(path: Path, choice: str, seed: int) -> dict[str, TeacherRationale]:
    """One verified rationale per problem, by the named policy; ties go to the earlier sample."""
    if choice == "random":
        by_problem: dict[str, list[TeacherRationale]] = {}
        for row in read_rows(path, TeacherRationale):
            by_problem.setdefault(row.problem_id, []).append(row)
        return {key: named_random(seed, "choice", key).choice(rows) for key, rows in by_problem.items()}
    order = {"shortest": "num_words, sample", "longest": "-num_words, sample", "first": "sample"}[choice]
    # `order` is one of ours, never the user's text.
    query = f"select * from read_parquet(?) qualify row_number() over (partition by problem_id order by {order}) = 1"  # noqa: S608
    with duckdb.connect() as connection:
        rows = [TeacherRationale(*row) for row in connection.execute(query, [str(path)]).fetchall()]
    return {row.problem_id: row for row in rows}


def _lesson(problem: Problem, rationale: TeacherRationale | None, shares: SplitShares) -> Lesson:
    position = position_of(problem.problem_id)
    return Lesson(
        problem_id=problem.problem_id,
        split=problem.split or split_at(position, shares),
        position=position,
        question=problem.question,
        answer=problem.answer,
        teacher_steps=rationale.steps if rationale else [],
        teacher_words=rationale.num_words if rationale else 0,
    )


def read_lessons(path: Path, split: str) -> Iterator[Lesson]:
    """The lessons of one split, in their order."""
    return (lesson for lesson in read_rows(path, Lesson) if lesson.split == split)


def _refuse_too_many(rejects: list[Reject], num_kept: int, allowed: float, field: str) -> None:
    total = len(rejects) + num_kept
    if not total or len(rejects) > allowed * total:
        reasons = Counter(reject.reason for reject in rejects).most_common(3)
        first = rejects[0].detail[:200] if rejects else "nothing was read"
        raise UserError(
            f"{len(rejects)} of {total} rows cannot be used ({', '.join(f'{n} x {reason}' for reason, n in reasons)}; "
            f"first: {first}); repair the source, or raise {field} (now {allowed:g})"
        )


def _write(folder: Path, row_type: type[Row], name: str, rows: Iterable[Row], rejects: list[Reject]) -> dict[str, int]:
    return {
        "kept": write_rows(folder / f"{name}.parquet", row_type, rows),
        "dropped": write_rows(folder / "rejects.parquet", Reject, rejects),
    }
