"""A comparison as a Prefect flow: every arm with every seed is a run of the curriculum of its own."""

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger
from prefect.runtime import deployment, flow_run

from cotpipe.errors import RunError, UserError
from cotpipe.recipe.comparison import SHIPPED_COMPARISONS, Arm, Comparison, load_comparison
from cotpipe.recipe.files import SHIPPED, recipe_in
from cotpipe.recipe.model import Recipe
from cotpipe.report.compared import Spent, as_markdown
from cotpipe.runs.comparisons import (
    compare_arms,
    cost_of,
    is_current,
    members_of,
    require_unchanged,
    with_budget,
    write_page,
)
from cotpipe.runs.log import Run
from cotpipe.settings import Settings
from cotpipe.store.artifacts import Store, open_store
from flows.curriculum import Results, StepName, run_steps
from flows.frames import free_frames
from tasks.runs import recorded_run


def _name() -> str:
    return Path(flow_run.get_parameters()["comparison"]).stem


def _arm_name() -> str:
    recipe = flow_run.get_parameters()["recipe"]
    return f"{recipe.name}, seed {recipe.seed}"


def chosen_comparison(
    file: str, changes: Sequence[str], name: str | None, recipe: str | None = None
) -> Comparison:
    """The comparison that a flow was asked for.

    Args:
        file: As `compare` takes it. A form names a shipped one, or one of the worker's recipes.
        changes: Changes of the base recipe; none from a form.
        name: Its name in the store; default: the one in the file.
        recipe: The base recipe in place of the file's; a form names it as it names the file.

    Raises:
        UserError: There is no such comparison, or a form asks for more than it may.
    """
    if not deployment.id:
        return load_comparison(file, changes, name, recipe)
    if changes:
        raise UserError(
            "changes: not accepted in a form; put a comparison that has them into the worker's folder of "
            "recipes (COTPIPE_RECIPES), and name it in comparison"
        )
    base = _file_of_a_form("recipe", recipe, SHIPPED) if recipe else None
    return load_comparison(_file_of_a_form("comparison", file, SHIPPED_COMPARISONS), (), name, base)


def _file_of_a_form(field: str, name: str, shipped: Path) -> str:
    """The shipped file of a name, or that in the worker's folder of recipes."""
    own = Settings().recipes
    found = recipe_in([shipped, *([own] if own else [])], name)
    if found is None:
        raise UserError(
            f"{field}: {name!r} is neither a shipped {field} nor a file in the folder of recipes "
            f"(COTPIPE_RECIPES: {own or 'not set'})"
        )
    return str(found)


@flow(name="compare", flow_run_name=_name, validate_parameters=True)
def compare(
    comparison: str = "curriculum",
    arms: tuple[str, ...] = (),
    seeds: tuple[int, ...] = (),
    changes: tuple[str, ...] = (),
    name: str | None = None,
    recipe: str | None = None,
) -> None:
    """Run the arms of a comparison, seed by seed, and compare what their last checkpoints reach.

    Args:
        comparison: A shipped comparison (curriculum, rewards), or a file in the worker's folder of
            recipes (COTPIPE_RECIPES); for the command, any file.
        arms: Run only these arms; the result has all that are there.
        seeds: Run only these seeds.
        changes: Changes of the base recipe, as `--set` takes them; only for the command.
        name: Its name in the store; default: the one in the file.
        recipe: The base recipe, in place of the file's: a shipped one, or a file in the worker's folder
            of recipes; for the command, any file.

    Raises:
        RunError: Arms or seeds that failed, at the end: the others are run and compared all the same.
    """
    store = open_store(Settings())
    chosen = chosen_comparison(comparison, changes, name, recipe)
    require_unchanged(store, chosen)
    write_page(store, compare_arms(store, chosen))  # from here on, `gc` keeps its runs
    failed: dict[tuple[str, int], str] = {}
    done = {(one.arm, one.seed): one.run for one in members_of(store, chosen) if one.is_done}
    spent = {key: cost_of(store, run.references) for key, run in done.items() if run}
    members = chosen.members(arms, seeds)
    started = time.monotonic()
    for place, (arm_name, seed) in enumerate(members, start=1):
        run = done.get((arm_name, seed))
        if run and not chosen.arms[arm_name].budget_of and is_current(store, run):
            continue
        spent.pop((arm_name, seed), None)
        _tell(f"{arm_name}/{seed}", f"run {place} of {len(members)}", time.monotonic() - started)
        try:
            spent[arm_name, seed] = _run_member(store, chosen.arms[arm_name], seed, run, spent)
        except (RunError, UserError) as error:
            failed[arm_name, seed] = str(error)
            get_run_logger().error("%s, seed %d failed: %s", arm_name, seed, error)
            free_frames(error)
    compared = compare_arms(store, chosen, failed)
    write_page(store, compared)
    create_markdown_artifact(
        as_markdown(compared), key="comparison", description=f"Comparison {chosen.name}"
    )
    if failed:
        told = "; ".join(f"{arm}, seed {seed}: {why}" for (arm, seed), why in failed.items())
        raise RunError(f"{len(failed)} failed: {told}")


@flow(name="arm", flow_run_name=_arm_name, validate_parameters=True)
def arm(recipe: Recipe, until: StepName = "report") -> Results:
    """One arm with one seed: a run like any other."""
    store = open_store(Settings())
    with recorded_run(store, recipe) as log:
        log.need([])  # it has a record from here on, also if it fails before its first step
        return run_steps(store, recipe, log, until)


def _run_member(
    store: Store,
    chosen: Arm,
    seed: int,
    earlier: Run | None,
    spent: Mapping[tuple[str, int], Spent],
) -> Spent:
    """Run an arm with a seed, unless its earlier run is what it would be; returns what it cost."""
    recipe = chosen.with_seed(seed)
    if chosen.budget_of:
        try:
            recipe = _filling(store, chosen, seed, spent)
        except (RunError, UserError):
            with recorded_run(store, recipe) as log:  # so that the comparison shows why
                log.need([])
                raise
        if (
            earlier
            and earlier.recipe == recipe.model_dump(mode="json")
            and is_current(store, earlier)
        ):
            return cost_of(store, earlier.references)
    return _cost(store, arm(recipe))


def _filling(
    store: Store, chosen: Arm, seed: int, spent: Mapping[tuple[str, int], Spent]
) -> Recipe:
    """The recipe that fills the budget of another arm: the arm's own, run once, tells how long it takes."""
    assert chosen.budget_of
    budget = spent.get((chosen.budget_of, seed))
    if budget is None:
        raise RunError(f"its budget is that of {chosen.budget_of}, which has no result")
    recipe = chosen.with_seed(seed)
    last = recipe.stages[-1].name
    tried = arm(recipe.model_copy(update={"name": f"{recipe.name}.probe"}), until=last)
    trained = store.require(tried[last].reference)
    return with_budget(chosen, seed, trained, _cost(store, tried), budget)


def _tell(member: str, what: str, seconds: float) -> None:
    """Write a line like those of the steps: to the run's log or, if that is hidden, to stderr."""
    logger = get_run_logger()
    if logger.isEnabledFor(logging.INFO):
        logger.info("%s: %s", member, what)
    else:
        sys.stderr.write(f"{member:<18} {timedelta(seconds=int(seconds))}  {what}\n")
        sys.stderr.flush()


def _cost(store: Store, results: Results) -> Spent:
    return cost_of(store, {kind: result.reference for kind, result in results.items()})
