"""The step that assigns each problem its split and the rationale to teach."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import duckdb

from cotpipe.data.problems.stored import PROBLEMS
from cotpipe.data.rows import Lesson, Problem, Reject, Split, TeacherRationale, read_rows
from cotpipe.data.splits import near_duplicates, position_of, split_at
from cotpipe.randomness import named_random
from cotpipe.steps.rejects import write_with_rejects
from cotpipe.steps.step import Step, Work


def plan_lessons(work: Work) -> dict[str, int]:
    """Write `lessons.parquet`: every problem with its split and the rationale to teach.

    Batches are ordered from newest to oldest, and problems within a batch by the hash of their id.
    Training problems that nearly duplicate a held-out question go to `rejects.parquet`.
    """
    section = work.recipe.problems
    chosen = _choose(
        work.input("rationales", "rationales.parquet"), work.recipe.teacher.choice, work.recipe.seed
    )
    problems = sorted(
        read_rows(work.input("problems", PROBLEMS), Problem),
        key=lambda problem: (-problem.batch, position_of(problem.problem_id), problem.problem_id),
    )
    shares = section.splits.by_name()
    lessons = [_lesson(problem, chosen.get(problem.problem_id), shares) for problem in problems]
    held_out = [lesson.question for lesson in lessons if lesson.split in ("validation", "test")]
    training = [
        (lesson.problem_id, lesson.question)
        for lesson in lessons
        if lesson.split not in ("validation", "test")
    ]
    repeats = near_duplicates(training, held_out, section.near_duplicate)
    rejects = [
        Reject(problem_id, "nearly a held-out question", text)
        for problem_id, text in sorted(repeats.items())
    ]
    kept = [lesson for lesson in lessons if lesson.problem_id not in repeats]
    counts = write_with_rejects(work.output, Lesson, "lessons", kept, rejects)
    return counts | {
        f"{split} problems": count
        for split, count in sorted(Counter(row.split for row in kept).items())
    }


def _choose(path: Path, choice: str, seed: int) -> dict[str, TeacherRationale]:
    """One verified rationale per problem, by the given policy; ties go to the earlier sample."""
    if choice == "random":
        by_problem: dict[str, list[TeacherRationale]] = {}
        for row in read_rows(path, TeacherRationale):
            by_problem.setdefault(row.problem_id, []).append(row)
        return {
            key: named_random(seed, "choice", key).choice(rows) for key, rows in by_problem.items()
        }
    order = {"shortest": "num_words, sample", "longest": "-num_words, sample", "first": "sample"}[
        choice
    ]
    # `order` is one of the constants above, never user input.
    query = f"select * from read_parquet(?) qualify row_number() over (partition by problem_id order by {order}) = 1"  # noqa: S608
    with duckdb.connect() as connection:
        rows = [TeacherRationale(*row) for row in connection.execute(query, [str(path)]).fetchall()]
    return {row.problem_id: row for row in rows}


def _lesson(
    problem: Problem, rationale: TeacherRationale | None, shares: dict[Split, float]
) -> Lesson:
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
    """The lessons of one split, in order."""
    return (lesson for lesson in read_rows(path, Lesson) if lesson.split == split)


STEP = Step(
    "lessons",
    1,
    ("problems", "rationales"),
    lambda recipe: recipe.fields(
        "seed", "problems.splits", "problems.near_duplicate", "teacher.choice"
    ),
    plan_lessons,
)
