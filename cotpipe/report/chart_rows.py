"""The charts of a run's results, from its evaluation rows."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cotpipe.recipe.stages import title_of
from cotpipe.report.by_steps import hits_by_steps
from cotpipe.report.charts import Bin, Point, ShareOf
from cotpipe.report.statistics import share
from cotpipe.report.summary import Summary

if TYPE_CHECKING:
    import pandas as pd

_NUM_BINS = 40


def points(summaries: Sequence[Summary]) -> list[Point]:
    """A mark per checkpoint."""
    return [Point(title_of(one.checkpoint), one.accuracy, one.tokens) for one in summaries]


def shares_by_steps(
    rows: "Mapping[str, pd.DataFrame]", teacher: Mapping[str, Sequence[str]]
) -> list[ShareOf]:
    """The accuracy of some checkpoints by the number of steps of the teacher's rationale.

    Args:
        rows: The evaluation rows of the checkpoints to compare.
        teacher: The steps of the teacher's rationale, by problem id; problems without are left out.
    """
    num_steps = {problem_id: len(steps) for problem_id, steps in teacher.items()}
    return [
        ShareOf(title_of(name), steps, len(hits), share(hits))
        for name, table in rows.items()
        for steps, hits in hits_by_steps(
            zip(table["problem_id"], map(bool, table["correct"]), strict=True), num_steps
        )
    ]


def length_bins(rows: "Mapping[str, pd.DataFrame]") -> list[Bin]:
    """Histograms of the answers' lengths (tokens), with the same bins for every checkpoint."""
    longest = max(int(table["num_tokens"].max()) for table in rows.values())
    width = max(1, -(-(longest + 1) // _NUM_BINS))
    edges = np.arange(0, longest + width + 1, width)
    return [
        Bin(title_of(name), float(low), float(low + width), int(count), float(table["num_tokens"].mean()))
        for name, table in rows.items()
        for low, count in zip(edges, np.histogram(table["num_tokens"], edges)[0], strict=False)
    ]  # fmt: skip
