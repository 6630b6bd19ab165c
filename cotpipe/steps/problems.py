"""The step that reads the problems."""

from typing import Any

from cotpipe.data.problems import Reading
from cotpipe.data.problems.stored import PROBLEMS
from cotpipe.data.rows import Problem
from cotpipe.recipe.model import Recipe
from cotpipe.steps.rejects import refuse_too_many, write_with_rejects
from cotpipe.steps.step import Step, Work


def collect_problems(work: Work) -> dict[str, int]:
    """Read the source and write `problems.parquet` and `rejects.parquet`."""
    section = work.recipe.problems
    reading = Reading(work.recipe.seed, work.recipe.answers, work.stored)
    found = write_with_rejects(
        work.output, Problem, PROBLEMS.removesuffix(".parquet"), section.source.read(reading)
    )
    allowed = 1.0 if section.source.checked else section.max_rejected_share
    refuse_too_many(found, allowed, "problems.max_rejected_share")
    return found.counts | dict(found.reasons.most_common())


def _fields(recipe: Recipe) -> dict[str, Any]:
    fields = recipe.fields("seed", "problems.max_rejected_share", "problems.answers")
    return fields | {"problems.source": recipe.problems.source.content()}


STEP = Step("problems", 3, (), _fields, collect_problems)
