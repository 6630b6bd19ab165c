"""The record of the current flow run: written before its first step, finished however it ends."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from prefect.runtime import flow_run

from cotpipe.recipe.model import Recipe
from cotpipe.runs.log import RunLog
from cotpipe.steps.plan import left_to_refresh, name_artifacts
from cotpipe.store.artifacts import Store


def run_suffix() -> str:
    """The end of the run's id: that of the flow run in Prefect, which stays when it is retried."""
    return str(flow_run.get_id())[:8]


@contextmanager
def recorded_run(
    store: Store, recipe: Recipe, kinds: Collection[str], refresh: Collection[str]
) -> Iterator[tuple[RunLog, set[str]]]:
    """Keep the run's record while the steps run in the `with` block.

    Yields its log, and the steps to refresh: a retry does not repeat those that are done.

    Args:
        store: The store of the run.
        recipe: The recipe of the run.
        kinds: The steps that will run.
        refresh: Steps to run again even if the store has their artifacts.
    """
    log = RunLog(store.storage, recipe, suffix=run_suffix())
    left = left_to_refresh(recipe, store, log.left(refresh), log.begun)
    artifacts = name_artifacts(recipe, store, left)
    log.plan(artifacts[kind] for kind in kinds)
    try:
        with log.heartbeat():
            yield log, left
    except Exception as error:
        log.finish("failed", (str(error).strip() or type(error).__name__).splitlines()[0])
        raise
    except BaseException:  # Ctrl-C and Prefect's cancellation are not `Exception`s
        log.finish("interrupted")
        raise
    log.finish("completed")
