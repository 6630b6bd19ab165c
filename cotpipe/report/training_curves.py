"""Training curves of all stages over their optimizer steps, one after the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import duckdb

from cotpipe.recipe.stages import title_of
from cotpipe.report.charts import Curve, curves

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd

_MOST_POINTS = 250

# What is drawn together, with the logged figures and what the legend calls them.
_PANELS: dict[str, dict[str, str]] = {
    "Reward of a completion": {"reward": "mean", "reward_deviation": "deviation"},
    "Share of sampled completions": {
        "correct": "right",
        "valid_format": "valid format",
        "truncated": "cut off",
    },
    "Accuracy on validation problems, greedy": {"validation_accuracy": "accuracy"},
    "Length (tokens)": {"completion_tokens": "sampled", "validation_tokens": "validation, greedy"},
    "Share of groups with one reward for all": {"groups_without_variance": "without variance"},
    "Prompts replaced in a step": {"replaced_prompts": "replaced"},
    "Share of prompts with the bare question": {"bare_questions": "bare"},
    "Entropy (nats per token)": {"entropy": "entropy"},
    "KL divergence from the stage's start": {"kl": "KL"},
    "Loss": {"loss": "loss"},
    "Accuracy on the target's tokens": {"token_accuracy": "accuracy"},
    "Gradient norm": {"gradient_norm": "norm"},
}


@dataclass(frozen=True)
class Training:
    """What was logged and validated while a stage trained."""

    log: "pd.DataFrame"  # step, name, value
    validations: Path | None = None  # `validations.parquet`
    rollouts: Path | None = None  # `rollouts.parquet`, of a GRPO stage

    @property
    def optimizer_steps(self) -> int:
        """How many optimizer steps it took; 0 if it was not trained."""
        return int(self.log["step"].max()) if len(self.log) else 0


def training_curves(trainings: Mapping[str, Training]) -> "dict[str, alt.LayerChart]":
    """The charts, by title, of what was recorded; stages stand in their order."""
    starts, begin = {}, 0
    drawn: dict[str, list[Curve]] = {title: [] for title in _PANELS}
    for stage, training in trainings.items():
        if not training.optimizer_steps:
            continue
        starts[title_of(stage)] = float(begin)
        figures = _figures(training)
        for title, names in _PANELS.items():
            drawn[title] += [
                _curve(label, stage, [(begin + step, value) for step, value in figures[name]])
                for name, label in names.items()
                if name in figures
            ]
        begin += training.optimizer_steps
    return {title: curves(title, lines, starts, begin) for title, lines in drawn.items() if lines}


def _curve(label: str, stage: str, points: Sequence[tuple[int, float]]) -> Curve:
    """A curve of at most so many points as a chart can show: means of neighbours."""
    size = -(-len(points) // _MOST_POINTS)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    steps = [fmean(step for step, _ in part) for part in parts]
    return Curve(label, stage, steps, [fmean(value for _, value in part) for part in parts])


def _figures(training: Training) -> dict[str, list[tuple[int, float]]]:
    """The points of each figure, by step."""
    found: dict[str, list[tuple[int, float]]] = {
        str(name): list(zip(rows["step"].tolist(), rows["value"].tolist(), strict=True))
        for name, rows in training.log.sort_values("step", kind="stable").groupby("name")
    }
    if training.validations:
        query = """
            select step, avg(correct::int), avg(num_tokens) from read_parquet(?)
            group by step order by step
        """
        with duckdb.connect() as connection:
            states = connection.execute(query, [str(training.validations)]).fetchall()
        if states:
            found["validation_accuracy"] = [(step, accuracy) for step, accuracy, _ in states]
            found["validation_tokens"] = [(step, tokens) for step, _, tokens in states]
    return found
