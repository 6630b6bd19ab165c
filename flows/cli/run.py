"""The commands that run a recipe, or rerun that of an earlier run."""

import sys
from functools import partial
from typing import Annotated

import typer

from cotpipe.recipe.files import load_recipe
from cotpipe.recipe.model import Recipe
from cotpipe.runs.log import find_run, recipe_of
from cotpipe.settings import Settings
from cotpipe.steps.curriculum import needed_for, require_steps, steps_of
from cotpipe.steps.plan import name_artifacts, plan_run
from cotpipe.steps.runner import StepResult
from cotpipe.store.artifacts import open_store
from flows.cli.options import (
    DebugOption,
    DryRunOption,
    RecipeOption,
    RunArgument,
    SetOption,
    StoreOption,
)
from flows.cli.results import show_plan, show_results
from flows.cli.serving import on_a_server
from flows.cli.terminal import Terminal


def run(
    recipe: RecipeOption = "demo",
    set_: SetOption = None,
    store: StoreOption = None,
    refresh: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STEP",
            help="Run a step and all that depends on it again, even if the store has it; can be repeated.",
        ),
    ] = None,
    until: Annotated[
        str, typer.Option(metavar="STEP", help="Stop after this step; run only what it needs.")
    ] = "report",
    dry_run: DryRunOption = False,
    debug: DebugOption = False,
) -> None:
    """Run the whole curriculum. Finished steps are reused, so an interrupted run resumes."""
    _run(load_recipe(recipe, set_ or []), refresh or [], dry_run, until)


def rerun(
    run: RunArgument,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="STEP",
            help="Run this step and all that depends on it again.",
        ),
    ] = None,
    store: StoreOption = None,
    dry_run: DryRunOption = False,
    debug: DebugOption = False,
) -> None:
    """Rerun the recipe of an earlier run: reuse finished steps, run failed or missing ones."""
    earlier = find_run(open_store(Settings()).storage, run)
    _run(recipe_of(earlier), [from_] if from_ else [], dry_run)


def _run(recipe: Recipe, refresh: list[str], dry_run: bool, until: str = "report") -> None:
    recipe.load_own_code()
    opened = open_store(Settings())
    require_steps([*refresh, until], steps_of(recipe))
    name_artifacts(recipe, opened)
    if dry_run:
        wide = None if sys.stdout.isatty() else 240  # do not wrap in a file
        needed = needed_for(until, steps_of(recipe))
        planned = [step for step in plan_run(recipe, opened, refresh) if step.kind in needed]
        show_plan(recipe.name, planned, Terminal(width=wide))
        return
    results = on_a_server(partial(_curriculum, recipe, refresh, until))
    if until == "report":
        show_results(
            {kind: result.reference for kind, result in results.items()}, opened, Terminal()
        )
    else:
        place = opened.storage.location(str(results[until].reference))
        Terminal().print(f"{until}: {place}", soft_wrap=True)


def _curriculum(recipe: Recipe, refresh: list[str], until: str) -> dict[str, StepResult]:
    from flows.curriculum import curriculum

    return curriculum(recipe=recipe, until=until, refresh=tuple(refresh))
