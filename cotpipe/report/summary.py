"""Results of a run: one summary per checkpoint, and the effect of each stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from cotpipe.report.statistics import (
    Change,
    Estimate,
    change_of_mean,
    change_of_share,
    holm,
    mean,
    median_change,
    share,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Summary:
    """One row of the result table."""

    checkpoint: str
    problems: int
    accuracy: Estimate  # share in [0, 1]
    tokens: Estimate  # mean output length (tokens of the student)
    valid_format: Estimate  # share in [0, 1]
    truncated: float  # share in [0, 1]


@dataclass(frozen=True)
class Comparison:
    """The change from one checkpoint to another on the same problems."""

    before: str
    after: str
    accuracy: Change
    tokens: Change
    median_tokens: float  # of the changes per problem

    @property
    def verdict(self) -> str:
        """Whether the later checkpoint is significantly more accurate or shorter, in words."""
        accuracy = _verdict(self.accuracy, "adds accuracy", "loses accuracy")
        tokens = _verdict(self.tokens, "writes more tokens", "saves tokens")
        found = [text for text in (accuracy, tokens) if text]
        return (
            " and ".join(found) + " beyond noise"
            if found
            else "changes neither accuracy nor length beyond noise"
        )


def read_evaluations(files: Mapping[str, Path]) -> "dict[str, pd.DataFrame]":
    """The evaluation rows of each checkpoint, ordered by problem id."""
    with duckdb.connect() as connection:
        query = "select * from read_parquet(?) order by problem_id"
        return {name: connection.execute(query, [str(path)]).df() for name, path in files.items()}


def summarise(name: str, rows: "pd.DataFrame") -> Summary:
    """Summarise one checkpoint; raises `AssertionError` if there are no rows."""
    assert len(rows), f"{name} was evaluated on no problem"
    return Summary(
        checkpoint=name,
        problems=len(rows),
        accuracy=share(rows["correct"].tolist()),
        tokens=mean(rows["num_tokens"].tolist()),
        valid_format=share(rows["valid_format"].tolist()),
        truncated=float(rows["truncated"].mean()),
    )


def compare(
    before: str,
    after: str,
    rows: "Mapping[str, pd.DataFrame]",
    rows_after: "Mapping[str, pd.DataFrame] | None" = None,
) -> Comparison:
    """Compare two checkpoints problem by problem.

    Args:
        before: The first checkpoint.
        after: The second one.
        rows: The answers by checkpoint.
        rows_after: Those among which the second is, if it is of another run.
    """
    first, second = rows[before], (rows if rows_after is None else rows_after)[after]
    require_same_problems(first, second)
    lengths = first["num_tokens"].tolist(), second["num_tokens"].tolist()
    return Comparison(
        before,
        after,
        accuracy=change_of_share(first["correct"].tolist(), second["correct"].tolist()),
        tokens=change_of_mean(*lengths),
        median_tokens=median_change(*lengths),
    )


def require_same_problems(first: "pd.DataFrame", second: "pd.DataFrame") -> None:
    """Assert that two checkpoints were evaluated on the same problems."""
    assert first["problem_id"].tolist() == second["problem_id"].tolist(), (
        "evaluated on different problems"
    )


def comparisons(starts: Mapping[str, str], rows: "Mapping[str, pd.DataFrame]") -> list[Comparison]:
    """The comparisons of a report; their p-values are corrected for the number of all its tests.

    First all stages together, then each stage against its initial checkpoint, then the last stage
    against the first. `starts` maps each stage, in order, to its initial checkpoint; `student` is
    evaluated as `base`.
    """
    first, *_, last = ("base", *starts)
    pairs = [(first, last)]
    pairs += [("base" if start == "student" else start, stage) for stage, start in starts.items()]
    pairs.append((next(iter(starts)), last))
    chosen = [pair for pair in dict.fromkeys(pairs) if pair[0] != pair[1]]
    return corrected([compare(before, after, rows) for before, after in chosen])


def corrected(found: Sequence[Comparison]) -> list[Comparison]:
    """Comparisons with p-values corrected for the number of all their tests (Holm)."""
    accuracy = [one.accuracy.p_value for one in found]
    p_values = holm(accuracy + [one.tokens.p_value for one in found])
    return [
        replace(
            one,
            accuracy=replace(one.accuracy, p_value=p_values[number]),
            tokens=replace(one.tokens, p_value=p_values[len(found) + number]),
        )
        for number, one in enumerate(found)
    ]


def percent(estimate: Estimate | Change) -> str:
    """A share as `67.5 % [60.7, 73.6]`; a change in percentage points, signed."""
    sign = "+" if isinstance(estimate, Change) else ""
    unit = " points" if isinstance(estimate, Change) else " %"
    return f"{100 * estimate.value:{sign}.1f}{unit} [{100 * estimate.low:{sign}.1f}, {100 * estimate.high:{sign}.1f}]"


def number(estimate: Estimate | Change) -> str:
    """A mean as `96.1 [93.0, 99.2]`; a change is signed."""
    sign = "+" if isinstance(estimate, Change) else ""
    return f"{estimate.value:{sign}.1f} [{estimate.low:{sign}.1f}, {estimate.high:{sign}.1f}]"


def _verdict(change: Change, more: str, less: str) -> str:
    if not change.beyond_noise:
        return ""
    return more if change.value > 0 else less
