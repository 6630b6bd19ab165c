"""The whole curriculum as one Prefect flow: problems in, three trained checkpoints and a report out."""

from collections.abc import Callable
from typing import Any

from prefect import flow

from cotpipe.config import Recipe
from cotpipe.store import Reference
from tasks.steps import evaluate, mine, prepare, report, train

Verb = Callable[..., Any]
"""A task of `tasks.steps`, which returns a state: `Cached` or `Completed`."""


@flow(name="curriculum", flow_run_name="{recipe.name}", validate_parameters=True)
def curriculum(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Distil a teacher's rationales into a student in three stages and report what each stage changed.

    Args:
        recipe: Everything that decides what is computed. Where it is stored comes from the environment.

    Returns:
        Per step its artifact's reference, whether it was reused, and its counts.
    """
    results: dict[str, dict[str, Any]] = {}
    artifacts: dict[str, Reference] = {}

    def run(verb: Verb, *kinds: str) -> None:
        for kind in kinds:
            results[kind] = verb(kind, recipe, dict(artifacts)).result()
            artifacts[kind] = Reference.model_validate(results[kind]["reference"])

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
