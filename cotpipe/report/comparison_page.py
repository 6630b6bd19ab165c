"""The page of a comparison: every arm's accuracy against its tokens, verdicts, costs."""

from pathlib import Path

from cotpipe.recipe.stages import title_of
from cotpipe.report.arms import ArmScore
from cotpipe.report.charts import Point, accuracy_by_tokens
from cotpipe.report.compared import (
    HEADINGS,
    Compared,
    method,
    rows_of,
    verdicts,
    without_result,
)
from cotpipe.report.drawing import svg
from cotpipe.report.page import write_page
from cotpipe.report.summary import number, percent
from cotpipe.report.tables import Table

_SECTIONS = {"results": "Results", "checkpoints": "Checkpoints"}


def write_comparison_page(path: Path, compared: Compared) -> None:
    """Write the page of a comparison as one HTML file."""
    write_page(
        path,
        "comparison",
        sections=_SECTIONS,
        name=compared.name,
        verdicts=verdicts(compared),
        without_result=without_result(compared),
        method=method(compared),
        arms=_chart([(arm, score) for arm, score in compared.scores.items()]),
        arms_table=Table(f"The last checkpoint of every arm; {method(compared)}", HEADINGS, rows_of(compared)),
        checkpoints=_chart(
            [(title_of(one.checkpoint), one.score) for one in compared.checkpoints], grouped=True
        ),
        checkpoints_table=_checkpoints_table(compared),
    )  # fmt: skip


def _chart(scores: list[tuple[str, ArmScore]], grouped: bool = False) -> str | None:
    points = [
        Point(name, score.accuracy, score.tokens, score.arm if grouped else "")
        for name, score in scores
    ]
    return svg(accuracy_by_tokens(points)) if points else None


def _checkpoints_table(compared: Compared) -> Table:
    return Table(
        "Every checkpoint of every arm",
        ("arm", "checkpoint", "seeds", "accuracy", "tokens"),
        [
            (
                one.arm,
                title_of(one.checkpoint),
                str(one.score.num_seeds),
                percent(one.score.accuracy),
                number(one.score.tokens),
            )
            for one in compared.checkpoints
        ],
    )
