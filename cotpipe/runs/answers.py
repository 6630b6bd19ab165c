"""The answers of a run's checkpoints to the held-out problems."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cotpipe.report.summary import read_evaluations
from cotpipe.runs.log import Run
from cotpipe.store.artifacts import Store

if TYPE_CHECKING:
    import pandas as pd


def answers_of(
    run: Run, store: Store, checkpoints: Sequence[str] | None = None
) -> "dict[str, pd.DataFrame]":
    """The answers of a run's evaluated checkpoints that are still in the store.

    Args:
        run: The run.
        store: Its store.
        checkpoints: The checkpoints, in order; default: all of the run.
    """
    found: dict[str, pd.DataFrame] = {}
    for name in run.checkpoints if checkpoints is None else checkpoints:
        reference = run.references.get(f"evaluation-{name}")
        if reference and (record := store.check(reference)):
            found |= read_evaluations({name: store.path(record, "evaluations.parquet")})
            store.release(record)
    return found
