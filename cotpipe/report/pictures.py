"""The pictures of the Markdown report: charts of the page, as PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cotpipe.report.chart_rows import points
from cotpipe.report.charts import accuracy_by_tokens
from cotpipe.report.drawing import save_png
from cotpipe.report.summary import Summary
from cotpipe.report.training_curves import Training, training_curves

_COLUMNS = 2


def draw_results(path: Path, summaries: Sequence[Summary]) -> None:
    """Draw accuracy against mean output tokens of every checkpoint, with 95 % intervals (PNG)."""
    save_png(path, accuracy_by_tokens(points(summaries), joined=True))


def draw_training(path: Path, trainings: Mapping[str, Training]) -> None:
    """Draw all stages' training curves by optimizer step (PNG); nothing if nothing was trained."""
    import altair as alt

    if charts := training_curves(trainings).values():
        save_png(
            path,
            alt.concat(*charts, columns=_COLUMNS).resolve_scale(
                color="independent", strokeDash="independent"
            ),
            scale=1,
        )
