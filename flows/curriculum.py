"""The whole curriculum as one Prefect flow: problems in, trained checkpoints and a report out."""

import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated

from prefect import flow
from prefect.runtime import deployment, flow_run
from prefect.settings import PREFECT_API_URL
from pydantic import Field

from cotpipe.engines.cluster import require_cluster
from cotpipe.errors import RunError, UserError
from cotpipe.recipe.files import is_inside, with_changes
from cotpipe.recipe.model import Recipe
from cotpipe.runs.log import RunLog, recipe_from
from cotpipe.settings import Settings
from cotpipe.steps.curriculum import needed_for, require_steps, steps_of
from cotpipe.steps.runner import StepResult
from cotpipe.store.artifacts import Store, open_store
from cotpipe.store.records import Reference
from tasks.runs import plan_steps, recorded_run
from tasks.steps import TASKS

_FORM = Recipe()

Results = dict[str, StepResult]
"""The outcome of every step, by kind."""

StepName = Annotated[str, Field(max_length=64)]
"""A step of the recipe: which there are depends on its stages."""


def run_name() -> str:
    """The name of a run in Prefect: its recipe, and its last step if that is not the report."""
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
    """Distil a teacher's rationales into a student, stage by stage, and report each stage's effect.

    Args:
        start_from: A shipped recipe (demo, gsm8k-smollm2-cpu, gsm8k-qwen2.5-3b,
            gsm8k-qwen2.5-3b-best), a file in the
            worker's folder of recipes (COTPIPE_RECIPES), or an earlier run (its id, or `last`). It
            provides all form fields left at their defaults.
        until: The last step; only the steps that it needs are run. The steps are problems,
            student, rationales, lessons, failures, evaluation-base, report, and for each stage of the recipe,
            such as stage1: stage1-examples, stage1 and evaluation-stage1.
        refresh: Steps to run again even if the store has them, with all that depend on them.
        recipe: Everything that determines what is computed. The store is set in the environment.

    Returns:
        The outcome of every step.
    """
    store = open_store(Settings())
    chosen = chosen_recipe(recipe, start_from, store)
    with recorded_run(store, chosen) as log:
        return run_steps(store, chosen, log, until, refresh)


def chosen_recipe(form: Recipe, start_from: str | None, store: Store) -> Recipe:
    """The recipe that results from a form and its `start_from`.

    Raises `UserError` if they are incompatible, or if a form names what `_require_harmless` refuses.
    """
    if deployment.id:
        _require_harmless(form)
    if not start_from:
        return form
    return with_changes(recipe_from(start_from, store.storage, Settings().recipes), form)


def _require_harmless(form: Recipe) -> None:
    """Raise `UserError` for a form that names code to run, or any file of the worker to read.

    Whoever can start a run could choose that code, and read that file's rows in what the run makes
    of them. Recipe files in the worker's own folder may name both.
    """
    for own in form.own_code():
        raise UserError(
            f"{own}: code of your own is not accepted in a form; put it in a recipe file in the "
            "worker's folder of recipes (COTPIPE_RECIPES), and set start_from to that file"
        )
    recipes, here = Settings().recipes, Path.cwd()
    for path in form.problems.source.local_paths():
        if not any(is_inside(path, folder) for folder in (here, recipes) if folder):
            raise UserError(
                f"problems.source: {path} is not accepted in a form, which may only name files in "
                f"the worker's folder ({here}) or in its folder of recipes (COTPIPE_RECIPES: "
                f"{recipes or 'not set'}); put the file there"
            )


def run_steps(
    store: Store,
    recipe: Recipe,
    log: RunLog,
    until: str = "report",
    refresh: Collection[str] = (),
) -> Results:
    """Run or reuse the steps that `until` needs, in order, within a flow.

    Args:
        store: The store for the artifacts.
        recipe: The recipe to run.
        log: The record of the flow run.
        until: The last step.
        refresh: Steps to run again even if the store has them.

    Returns:
        The outcome of every step.
    """
    results: Results = {}
    artifacts: dict[str, Reference] = {}
    steps = steps_of(recipe)
    require_steps(refresh, steps)
    require_cluster(Settings(), PREFECT_API_URL.value())
    kinds = needed_for(until, steps)
    recipe.load_own_code()
    again = plan_steps(log, store, recipe, kinds, refresh)
    for kind in kinds:
        started = time.monotonic()
        result = run_step(kind, recipe, artifacts, kind in again)
        results[kind], artifacts[kind] = result, result.reference
        log.step(result.reference, result.reused, time.monotonic() - started)
    return results


def run_step(
    kind: str,
    recipe: Recipe,
    artifacts: Mapping[str, Reference],
    refresh: bool = False,
    name: str = "{kind}",
) -> StepResult:
    """Run or reuse one step within a flow; a step that takes too long raises `RunError`.

    Args:
        kind: The step.
        recipe: The recipe to run.
        artifacts: The artifacts made so far, by kind; its inputs are among them.
        refresh: Run it again even if the store has its artifact.
        name: Its name in Prefect.
    """
    hours = Settings().step_hours
    task = TASKS[steps_of(recipe)[kind].verb].with_options(
        timeout_seconds=hours * 3600, task_run_name=name
    )
    try:
        result: StepResult = task(kind, recipe, dict(artifacts), refresh).result()
    except TimeoutError as error:
        raise RunError(
            f"step {kind} took longer than {hours:g} hours; raise COTPIPE_STEP_HOURS"
        ) from error
    return result
