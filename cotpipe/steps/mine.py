"""The mining step: finds the problems that a checkpoint persistently fails."""

from functools import partial
from pathlib import Path

import duckdb

from cotpipe.data.rows import Answered, Failure, write_rows
from cotpipe.engines.base import Sampling
from cotpipe.randomness import named_seed
from cotpipe.recipe.model import Recipe
from cotpipe.steps.ask import ask, gpus_to_ask
from cotpipe.steps.lessons import read_lessons
from cotpipe.steps.step import Step, Work
from cotpipe.store.records import Reference

FAILURES = "failures"
"""Kind of the first failures artifact of a curriculum."""


def step(kind: str, checkpoint: str) -> Step:
    """The step that mines a checkpoint's failures into the artifact `kind`.

    The recipe's history is of the first mining of a curriculum; it decides no other.
    """

    def fields(recipe: Recipe) -> dict[str, object]:
        found = recipe.fields("seed", "mining", "problems.answers")
        if kind != FAILURES:
            found["mining"] = {**found["mining"], "history": []}
        return found

    return Step(
        kind=kind,
        version=3,
        inputs=(checkpoint, "lessons"),
        fields=fields,
        run=partial(mine_failures, checkpoint=checkpoint, with_history=kind == FAILURES),
        verb="mine",
        gpus=gpus_to_ask,
    )


def mine_failures(work: Work, checkpoint: str, with_history: bool) -> dict[str, int]:
    """Write `completions.parquet`, and `failures.parquet` with the failures that have a rationale.

    A failure is persistent if the problem also failed in every earlier mining artifact that the
    recipe lists (`with_history`) and that includes it. Only the mining split is used, so held-out
    problems never become training problems. A problem that is too long to be asked is no failure.
    """
    section = work.recipe.mining
    mined = list(read_lessons(work.input("lessons", "lessons.parquet"), "mining"))
    lessons = mined[: section.max_problems]
    seed = named_seed(work.recipe.seed, "mining")
    sampling = Sampling(section.num_samples, section.temperature, section.max_new_tokens, seed)
    asked = ask(work, checkpoint, lessons, sampling)
    answered = [row for row in asked.answered if row.problem_id not in asked.too_long]
    completions = work.output / "completions.parquet"
    write_rows(completions, Answered, answered)
    earlier = [
        work.stored(Reference(kind=FAILURES, fingerprint=fingerprint), completions.name)
        for fingerprint in (section.history if with_history else ())
    ]
    num_steps = {lesson.problem_id: len(lesson.teacher_steps) for lesson in lessons}
    rows = _persistent(completions, earlier, section.max_pass_rate)
    failures = [Failure(row[0], num_steps[row[0]], *row[1:]) for row in rows if num_steps[row[0]]]
    write_rows(work.output / "failures.parquet", Failure, failures)
    counts = {
        "problems": len(lessons),
        "persistent_failures": len(failures),
        "sampled_tokens": sum(row.num_tokens for row in answered),
    }
    return counts | ({"prompts_too_long": len(asked.too_long)} if asked.too_long else {})


def _persistent(
    completions: Path, earlier: list[Path], max_pass_rate: float
) -> list[tuple[str, int, int]]:
    """Id, samples and correct samples of the problems that failed now and before."""
    query = """
        with asked as (
            select filename = $now as now, problem_id, count(*) as num_samples,
                   count(*) filter (correct) as num_correct,
                   num_correct <= $max_pass_rate * num_samples as failed
            from read_parquet($files, filename = true)
            group by filename, problem_id
        )
        select problem_id, max(num_samples) filter (now), max(num_correct) filter (now)
        from asked
        group by problem_id
        having bool_or(now) and bool_and(failed)
        order by problem_id
    """
    parameters = {
        "files": [str(path) for path in (completions, *earlier)],
        "now": str(completions),
        "max_pass_rate": max_pass_rate,
    }
    with duckdb.connect() as connection:
        return connection.execute(query, parameters).fetchall()
