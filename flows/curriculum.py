"""The whole curriculum as one Prefect flow: problems in, three trained checkpoints and a report out."""

import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from cotpipe.config import Recipe
from cotpipe.curriculum import StepName, needed_for
from cotpipe.errors import RunError
from cotpipe.recipes import with_changes
from cotpipe.records import Reference
from cotpipe.runs import recipe_from
from cotpipe.settings import Settings
from cotpipe.store import Store, open_store
from tasks.runs import recorded_run
from tasks.steps import evaluate, mine, prepare, report, train

Verb = Callable[..., Any]
"""A task of `tasks.steps`, which returns a state: `Cached` or `Completed`."""

CURRICULUM: dict[StepName, Any] = {
    "problems": prepare,
    "student": prepare,
    "rationales": prepare,
    "lessons": prepare,
    "evaluation-base": evaluate,
    "stage1-examples": prepare,
    "stage1": train,
    "evaluation-stage1": evaluate,
    "stage2-examples": prepare,
    "stage2": train,
    "evaluation-stage2": evaluate,
    "failures": mine,
    "stage3-examples": prepare,
    "stage3": train,
    "evaluation-stage3": evaluate,
    "report": report,
}
"""The steps in their order, each with the task that runs it."""

_FORM = Recipe()

Results = dict[str, dict[str, Any]]
"""Per step its artifact's reference, whether it was reused, and its counts."""


def run_name() -> str:
    """What a run is called in Prefect: the recipe that it starts from, and where it ends."""
    parameters = flow_run.get_parameters()
    until = parameters.get("until", "report")
    start_from = parameters.get("start_from")
    name = Path(start_from).stem if start_from else parameters["recipe"].name
    return name if until == "report" else f"{name} until {until}"


@flow(name="curriculum", flow_run_name=run_name, validate_parameters=True)
def curriculum(
    start_from: str | None = None,
    until: StepName = "report",
    refresh: tuple[StepName, ...] = (),
    recipe: Recipe = _FORM,
) -> Results:
    """Distil a teacher's rationales into a student in three stages and report what each stage changed.

    Args:
        start_from: A shipped recipe (demo, gsm8k-smollm2-cpu, gsm8k-qwen2.5-3b), a YAML file on the worker, or an
            earlier run (its id, or `last`). Fields of the form that are left at their defaults are taken from there.
        until: The step to end at; only what it needs is done.
        refresh: Steps to do again although the store has them; what follows from them is done again, too.
        recipe: Everything that decides what is computed. Where it is stored comes from the environment.

    Returns:
        Per step its artifact's reference, whether it was reused, and its counts.
    """
    store = open_store(Settings())
    return run_steps(store, chosen_recipe(recipe, start_from, store), until, refresh)[1]


def chosen_recipe(form: Recipe, start_from: str | None, store: Store) -> Recipe:
    """The recipe that a form and what it starts from make together; raises `UserError` where they do not fit."""
    return with_changes(recipe_from(start_from, store.storage), form) if start_from else form


def run_steps(
    store: Store, recipe: Recipe, until: StepName = "report", refresh: Collection[str] = ()
) -> tuple[str, Results]:
    """Run or reuse the steps that `until` needs, in their order, within a flow; returns the run's id and results."""
    results: Results = {}
    artifacts: dict[str, Reference] = {}
    hours = Settings().step_hours
    kinds = [kind for kind in CURRICULUM if kind in needed_for(until)]
    with recorded_run(store, recipe, kinds, refresh) as log:
        again = log.left(refresh)
        for kind in kinds:
            started = time.monotonic()
            verb: Verb = CURRICULUM[kind].with_options(timeout_seconds=hours * 3600)
            try:
                results[kind] = verb(kind, recipe, dict(artifacts), kind in again).result()
            except TimeoutError as error:
                raise RunError(f"step {kind} took longer than {hours:g} hours; raise COTPIPE_STEP_HOURS") from error
            artifacts[kind] = Reference.model_validate(results[kind]["reference"])
            log.step(artifacts[kind], results[kind]["reused"], time.monotonic() - started)
    return log.run.run_id, results
