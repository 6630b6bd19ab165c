"""Plots of the report: accuracy and output length per checkpoint, and training curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cotpipe.data.rows import Result
from cotpipe.recipe.stages import Stage, title_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_BLUE, _ORANGE = "#1f5fa8", "#c4622d"


def draw_results(path: Path, rows: Sequence[Result]) -> None:
    """Plot accuracy (percent) and mean output tokens per checkpoint, with 95 % intervals (PNG)."""
    figure = _figure(9, 3.2)
    left, right = figure.subplots(1, 2)
    names = [title_of(row.checkpoint) for row in rows]
    left.bar(
        names,
        [100 * row.accuracy for row in rows],
        color=_BLUE,
        yerr=_errors(rows, "accuracy", 100),
        capsize=4,
    )
    left.set_title("accuracy (%)")
    right.bar(
        names,
        [row.tokens for row in rows],
        color=_ORANGE,
        yerr=_errors(rows, "tokens", 1),
        capsize=4,
    )
    right.set_title("mean output tokens")
    _save(figure, path)


def draw_training(path: Path, logs: "Mapping[str, pd.DataFrame]", stages: Sequence[Stage]) -> None:
    """Plot each stage's training curves (loss; reward and length) by optimizer step (PNG).

    `logs` maps a stage to its training log, with the columns step, name, value.
    """
    panels = [(stage.name, name) for stage in stages for name in stage.trainer.curves]
    figure = _figure(12, 2.6)
    for axes, (stage, name) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        log = logs[stage]
        curve = log[log["name"] == name].sort_values("step")
        axes.plot(curve["step"], curve["value"], color=_BLUE, marker="." if len(curve) < 30 else "")
        axes.set_title(f"{title_of(stage)}: {name.replace('_', ' ')}", fontsize=9)
        axes.set_xlabel("optimizer step", fontsize=8)
        axes.tick_params(labelsize=8)
    _save(figure, path)


def _errors(rows: Sequence[Result], name: str, scale: float) -> list[list[float]]:
    """The lengths of the error bars below and above each value, as matplotlib expects them."""
    values = [
        (getattr(row, name), getattr(row, f"{name}_low"), getattr(row, f"{name}_high"))
        for row in rows
    ]
    return [
        [scale * (value - low) for value, low, _ in values],
        [scale * (high - value) for value, _, high in values],
    ]


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: "Figure", path: Path) -> None:
    figure.savefig(path, dpi=110, metadata={"Software": None})
