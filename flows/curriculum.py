"""The whole curriculum as one Prefect flow: problems in, three trained checkpoints and a report out."""

import time
from collections.abc import Callable
from typing import Any

from prefect import flow

from cotpipe.config import Recipe
from cotpipe.records import Reference
from tasks.runs import recorded_run
from tasks.steps import evaluate, mine, prepare, report, train

Verb = Callable[..., Any]
"""A task of `tasks.steps`, which returns a state: `Cached` or `Completed`."""


@flow(name="curriculum", flow_run_name="{recipe.name}", validate_parameters=True)
def curriculum(recipe: Recipe, refresh: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """Distil a teacher's rationales into a student in three stages and report what each stage changed.

    Args:
        recipe: Everything that decides what is computed. Where it is stored comes from the environment.
        refresh: Steps to do again although the store has them; what follows from them is done again, too.

    Returns:
        Per step its artifact's reference, whether it was reused, and its counts.
    """
    results: dict[str, dict[str, Any]] = {}
    artifacts: dict[str, Reference] = {}
    with recorded_run(recipe, refresh) as log:

        def run(verb: Verb, *kinds: str) -> None:
            for kind in kinds:
                started = time.monotonic()
                results[kind] = verb(kind, recipe, dict(artifacts), kind in refresh).result()
                artifacts[kind] = Reference.model_validate(results[kind]["reference"])
                log.step(artifacts[kind], results[kind]["reused"], time.monotonic() - started)

        run(prepare, "problems", "student", "rationales", "lessons")
        run(evaluate, "evaluation-base")
        run(prepare, "stage1-examples")
        run(train, "stage1")
        run(evaluate, "evaluation-stage1")
        run(prepare, "stage2-examples")
        run(train, "stage2")
        run(evaluate, "evaluation-stage2")
        run(mine, "failures")
        run(prepare, "stage3-examples")
        run(train, "stage3")
        run(evaluate, "evaluation-stage3")
        run(report, "report")
    return results
