"""Prepare: read the problems, choose a rationale for each, split them once."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import duckdb

from cotpipe.config import SplitShares, StoredSource
from cotpipe.errors import UserError
from cotpipe.problems import read_problems
from cotpipe.randomness import named_random
from cotpipe.records import Reference
from cotpipe.rows import Lesson, Problem, Reject, Row, TeacherRationale, read_rows, write_rows
from cotpipe.splits import near_duplicates, position_of, split_at
from cotpipe.steps.step import Work

_PROBLEMS = "problems.parquet"


def collect_problems(work: Work) -> dict[str, int]:
    """Write `problems.parquet` and `rejects.parquet` from the source."""
    section = work.recipe.problems
    problems: list[Problem] = []
    rejects: list[Reject] = []
    source = section.source
    rows = _stored(work, source) if isinstance(source, StoredSource) else read_problems(source, work.recipe.seed)
    for row in rows:
        if isinstance(row, Problem):
            problems.append(row)
        else:
            rejects.append(row)
    # What the store has was checked when it came, and its batches may repeat each other as they like.
    allowed = 1.0 if isinstance(source, StoredSource) else section.max_rejected_share
    refuse_too_many(rejects, len(problems), allowed, "problems.max_rejected_share")
    return write_with_rejects(work.output, Problem, "problems", problems, rejects)


def _stored(work: Work, source: StoredSource) -> Iterator[Problem | Reject]:
    """The problems of several artifacts; a question that comes again stays in the batch that brought it first."""
    seen: set[str] = set()
    for batch, fingerprint in enumerate(source.problems):
        for problem in read_rows(work.stored(Reference(kind="problems", fingerprint=fingerprint), _PROBLEMS), Problem):
            if problem.problem_id in seen:
                yield Reject(problem.problem_id, "repeated question", f"in batch {batch}, and in one before it")
            else:
                seen.add(problem.problem_id)
                yield replace(problem, batch=batch)


def plan_lessons(work: Work) -> dict[str, int]:
    """Choose a rationale per problem and split the problems: `lessons.parquet`, in each split's own order.

    The order is that of the ids' hashes, within the newest batch of problems, then the one before, and so on.

    Training problems whose question nearly repeats a held-out one go to `rejects.parquet`.
    """
    section = work.recipe.problems
    chosen = _choose(work.input("rationales", "rationales.parquet"), work.recipe.teacher.choice, work.recipe.seed)
    problems = sorted(
        read_rows(work.input("problems", _PROBLEMS), Problem),
        key=lambda problem: (-problem.batch, position_of(problem.problem_id), problem.problem_id),
    )
    lessons = [_lesson(problem, chosen.get(problem.problem_id), section.splits) for problem in problems]
    held_out = [lesson.question for lesson in lessons if lesson.split in ("validation", "test")]
    training = [
        (lesson.problem_id, lesson.question) for lesson in lessons if lesson.split not in ("validation", "test")
    ]
    repeats = near_duplicates(training, held_out, section.near_duplicate)
    rejects = [Reject(problem_id, "nearly a held-out question", text) for problem_id, text in sorted(repeats.items())]
    kept = [lesson for lesson in lessons if lesson.problem_id not in repeats]
    counts = write_with_rejects(work.output, Lesson, "lessons", kept, rejects)
    return counts | {f"{split} problems": count for split, count in sorted(Counter(row.split for row in kept).items())}


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
        uses=rationale.uses if rationale else [],
        distance=rationale.distance if rationale else [],
        critical=rationale.critical if rationale else [],
    )


def read_lessons(path: Path, split: str) -> Iterator[Lesson]:
    """The lessons of one split, in their order."""
    return (lesson for lesson in read_rows(path, Lesson) if lesson.split == split)


def refuse_too_many(rejects: list[Reject], num_kept: int, allowed: float, field: str) -> None:
    """Raise `UserError` where more than the allowed share of the rows, set by a field of the recipe, is unusable."""
    total = len(rejects) + num_kept
    if not total or len(rejects) > allowed * total:
        reasons = Counter(reject.reason for reject in rejects).most_common(3)
        first = rejects[0].detail[:200] if rejects else "nothing was read"
        raise UserError(
            f"{len(rejects)} of {total} rows cannot be used ({', '.join(f'{n} x {reason}' for reason, n in reasons)}; "
            f"first: {first}); repair the source, or raise {field} (now {allowed:g})"
        )


def write_with_rejects(
    folder: Path, row_type: type[Row], name: str, rows: Iterable[Row], rejects: list[Reject]
) -> dict[str, int]:
    """Write `NAME.parquet` and `rejects.parquet`; returns how many rows were kept and dropped."""
    return {
        "kept": write_rows(folder / f"{name}.parquet", row_type, rows),
        "dropped": write_rows(folder / "rejects.parquet", Reject, rejects),
    }
