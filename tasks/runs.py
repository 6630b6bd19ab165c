"""The record of the current flow run: from what it first needs on, finished however it ends."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from prefect.runtime import flow_run

from cotpipe.errors import first_line
from cotpipe.recipe.model import Recipe
from cotpipe.runs.log import RunLog
from cotpipe.steps.plan import left_to_refresh, name_artifacts
from cotpipe.store.artifacts import Store


def run_suffix() -> str:
    """The end of the run's id: that of the flow run in Prefect, which stays when it is retried."""
    return str(flow_run.get_id())[:8]


@contextmanager
def recorded_run(store: Store, recipe: Recipe) -> Iterator[RunLog]:
    """Keep the run's record alive in the `with` block, from the first entry on.

    A run that ends before it has recorded what it needs leaves no record.
    """
    log = RunLog(store.storage, recipe, suffix=run_suffix())
    try:
        with log.heartbeat():
            yield log
    except Exception as error:
        if log.is_written:
            log.finish("failed", first_line(error))
        raise
    except BaseException:  # Ctrl-C and Prefect's cancellation are not `Exception`s
        if log.is_written:
            log.finish("interrupted")
        raise
    if log.is_written:
        log.finish("completed")


def plan_steps(
    log: RunLog, store: Store, recipe: Recipe, kinds: Collection[str], refresh: Collection[str]
) -> set[str]:
    """Record what the steps will make; returns those to refresh: a retry repeats none that is done.

    Args:
        log: The record of the run.
        store: The store of the run.
        recipe: The recipe of the steps.
        kinds: The steps that will run.
        refresh: Steps to run again even if the store has their artifacts.
    """
    left = left_to_refresh(recipe, store, log.left(refresh), log.begun)
    artifacts = name_artifacts(recipe, store, left)
    log.plan((artifacts[kind] for kind in kinds), recipe)
    return left
