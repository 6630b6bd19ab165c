"""The record of the flow run that is under way: begun before its first step, ended however the flow ends."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from prefect.runtime import flow_run

from cotpipe.config import Recipe
from cotpipe.plan import name_artifacts
from cotpipe.runs import RunLog
from cotpipe.store import Store


@contextmanager
def recorded_run(store: Store, recipe: Recipe, kinds: Collection[str], refresh: Collection[str]) -> Iterator[RunLog]:
    """Write the run's record before, while and after the flow's steps `kinds` run in the `with` block."""
    log = RunLog(store.storage, recipe, suffix=str(flow_run.get_id())[:8])
    artifacts = name_artifacts(recipe, store, log.left(refresh))
    log.plan(artifacts[kind] for kind in kinds)
    try:
        yield log
    except Exception as error:
        log.finish("failed", (str(error).strip() or type(error).__name__).splitlines()[0])
        raise
    except BaseException:  # Ctrl-C and Prefect's cancellation are no `Exception`s
        log.finish("interrupted")
        raise
    log.finish("completed")
