"""The report's pictures: how accurate and how long each checkpoint answers, and how training went."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from cotpipe.rows import Result

_BLUE, _ORANGE = "#1f5fa8", "#c4622d"
_CURVES = {"stage1": ("loss",), "stage2": ("reward", "completion_tokens"), "stage3": ("reward", "completion_tokens")}


def draw_results(path: Path, rows: Sequence[Result], titles: Mapping[str, str]) -> None:
    """Accuracy (percent) and mean output tokens of every checkpoint, with their 95 % intervals, as a PNG."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = [titles[row.checkpoint] for row in rows]
    left.bar(names, [100 * row.accuracy for row in rows], color=_BLUE, yerr=_errors(rows, "accuracy", 100), capsize=4)
    left.set_title("accuracy (%)")
    right.bar(names, [row.tokens for row in rows], color=_ORANGE, yerr=_errors(rows, "tokens", 1), capsize=4)
    right.set_title("mean output tokens")
    _save(figure, path)


def draw_training(path: Path, logs: Mapping[str, pd.DataFrame], titles: Mapping[str, str]) -> None:
    """The loss of stage 1, reward and length of stages 2 and 3 by optimizer step, as a PNG.

    `logs` holds per stage the rows of its training log: step, name, value.
    """
    panels = [(stage, name) for stage, names in _CURVES.items() for name in names]
    figure = Figure(figsize=(12, 2.6), layout="constrained")
    for axes, (stage, name) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        log = logs[stage]
        curve = log[log["name"] == name].sort_values("step")
        axes.plot(curve["step"], curve["value"], color=_BLUE, marker="." if len(curve) < 30 else "")
        axes.set_title(f"{titles[stage]}: {name.replace('_', ' ')}", fontsize=9)
        axes.set_xlabel("optimizer step", fontsize=8)
        axes.tick_params(labelsize=8)
    _save(figure, path)


def _errors(rows: Sequence[Result], name: str, scale: float) -> list[list[float]]:
    """The distances to the ends of the intervals, as matplotlib takes them."""
    values = [(getattr(row, name), getattr(row, f"{name}_low"), getattr(row, f"{name}_high")) for row in rows]
    return [[scale * (value - low) for value, low, _ in values], [scale * (high - value) for value, _, high in values]]


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=110, metadata={"Software": None})
