"""The charts of a run's results, from its evaluation rows."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cotpipe.recipe.stages import title_of
from cotpipe.report.charts import Bin, Point, ShareOf
from cotpipe.report.statistics import share
from cotpipe.report.summary import Summary

if TYPE_CHECKING:
    import pandas as pd

_MANY_STEPS = 9
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
    found = []
    for name, table in rows.items():
        solved: dict[int, list[bool]] = {}
        for problem_id, correct in zip(table["problem_id"], table["correct"], strict=True):
            if steps := len(teacher.get(problem_id, ())):
                solved.setdefault(min(steps, _MANY_STEPS), []).append(bool(correct))
        found += [
            ShareOf(title_of(name), _steps(steps), len(hits), share(hits))
            for steps, hits in sorted(solved.items())
        ]
    return found


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


def _steps(number: int) -> str:
    return f"{number} and more" if number == _MANY_STEPS else str(number)
