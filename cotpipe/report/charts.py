"""Charts of results, from plain rows: accuracy against tokens, by number of steps, lengths, curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cotpipe.report.statistics import Estimate
from cotpipe.report.summary import number, percent

if TYPE_CHECKING:
    import altair as alt

_WIDTH, _HEIGHT = 400, 230
_FEW_POINTS = 20
_SHAPES = (
    "circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right",
    "triangle-left",
)  # fmt: skip
_DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 1], [1, 3])


@dataclass(frozen=True)
class Point:
    """One mark of `accuracy_by_tokens`: a checkpoint, or one run of an arm."""

    name: str
    accuracy: Estimate  # share in [0, 1]
    tokens: Estimate  # mean output length
    group: str = ""  # what colour and mark tell apart; default: the name

    @property
    def told(self) -> str:
        """Its figures in words."""
        name = f"{self.group}, {self.name}" if self.group else self.name
        return f"{name}: accuracy {percent(self.accuracy)}, tokens {number(self.tokens)}"


@dataclass(frozen=True)
class ShareOf:
    """One mark of `accuracy_by_steps`: the accuracy on the problems with so many steps."""

    name: str  # of the checkpoint
    num_steps: str  # as the axis shows it, such as `3` or `8 and more`
    problems: int
    accuracy: Estimate  # share in [0, 1]

    @property
    def told(self) -> str:
        """Its figures in words."""
        return f"{self.name}, {self.num_steps} steps: {percent(self.accuracy)} of {self.problems} problems"


@dataclass(frozen=True)
class Bin:
    """One bar of `lengths`: how many of a checkpoint's answers have from `low` to `high` tokens."""

    name: str
    low: float
    high: float
    answers: int
    mean: float  # of all the checkpoint's answers


@dataclass(frozen=True)
class Curve:
    """A line of `curves`: one figure in one stage; those of one name share colour and dash."""

    name: str
    stage: str
    steps: Sequence[float]  # optimizer steps, over all stages
    values: Sequence[float]


def accuracy_by_tokens(points: Sequence[Point], joined: bool = False) -> "alt.LayerChart":
    """Accuracy (percent) against mean output tokens, with intervals in both directions.

    Args:
        points: The marks; those of one group share colour and mark.
        joined: Whether a line joins the points in their order.
    """
    import altair as alt

    rows = [
        _bounds("accuracy", point.accuracy, 100)
        | _bounds("tokens", point.tokens, 1)
        | {"group": point.group or point.name, "told": point.told, "order": order}
        for order, point in enumerate(points)
    ]
    roomy = alt.Scale(zero=False, nice=True, padding=12)
    x = alt.X("tokens:Q", title="mean output tokens", scale=roomy)
    y = alt.Y("accuracy:Q", title="accuracy (%)", scale=roomy)
    base = alt.Chart().encode(x=x, y=y)
    colored = base.encode(color=_color(rows))
    layers: list[alt.Chart] = [base.mark_line(strokeWidth=1, opacity=0.6).encode(order="order:Q")]
    layers = layers if joined else []
    layers += [
        colored.mark_rule(strokeWidth=1.5).encode(x="tokens_low:Q", x2="tokens_high:Q"),
        colored.mark_rule(strokeWidth=1.5).encode(y="accuracy_low:Q", y2="accuracy_high:Q"),
        colored.mark_point(size=110, strokeWidth=2.5, filled=False, opacity=1).encode(
            shape=_shape(rows), description="told:N"
        ),
    ]
    return _layered(layers, rows, _HEIGHT)


def accuracy_by_steps(shares: Sequence[ShareOf]) -> "alt.LayerChart":
    """Accuracy (percent) by the number of steps of the teacher's rationale, side by side."""
    import altair as alt

    rows = [
        _bounds("accuracy", one.accuracy, 100)
        | {"group": one.name, "num_steps": one.num_steps, "told": one.told}
        for one in shares
    ]
    order = list(dict.fromkeys(one.num_steps for one in shares))
    names = list(dict.fromkeys(one.name for one in shares))
    x = alt.X(
        "num_steps:N", sort=order, title="steps of the teacher's rationale",
        axis=alt.Axis(labelAngle=0), scale=alt.Scale(paddingInner=0.4),
    )  # fmt: skip
    base = alt.Chart().encode(x=x, xOffset=alt.XOffset("group:N", sort=names), color=_color(rows))
    percent_scale = alt.Scale(domain=[0, 100])
    layers = [
        base.mark_rule(strokeWidth=1.5).encode(
            y=alt.Y("accuracy_low:Q", title="accuracy (%)", scale=percent_scale),
            y2="accuracy_high:Q",
        ),
        base.mark_point(size=70, strokeWidth=2.5, filled=False, opacity=1).encode(
            y=alt.Y("accuracy:Q", scale=percent_scale),
            shape=_shape(rows),
            description="told:N",
        ),
    ]
    return _layered(layers, rows, _HEIGHT)


def lengths(bins: Sequence[Bin]) -> "alt.FacetChart":
    """How long each checkpoint's answers are: one histogram below the other, and their means.

    Each has a height of its own: one whose answers are all cut off would flatten the others.
    """
    import altair as alt

    rows = [
        {
            "group": one.name, "low": one.low, "high": one.high, "answers": one.answers, "mean": one.mean,
            "told": f"{one.name}: {one.answers} answers of {one.low:.0f} to {one.high:.0f} tokens",
        }
        for one in bins
    ]  # fmt: skip
    names = list(dict.fromkeys(one.name for one in bins))
    bars = (
        alt.Chart()
        .mark_bar(binSpacing=0.5)
        .encode(
            x=alt.X("low:Q", title="output tokens", bin="binned"),
            x2="high:Q",
            y=alt.Y("answers:Q", axis=None),
            color=_color(rows, legend=False),
            description="told:N",
        )
    )
    means = alt.Chart().mark_rule(strokeWidth=2, strokeDash=[4, 3]).encode(x="mean(mean):Q")
    header = alt.Header(title=None, labelAnchor="start", labelOrient="top", labelPadding=2)
    row = alt.layer(bars, means, width=_WIDTH, height=40, data=alt.InlineData(values=rows))
    drawn: alt.FacetChart = row.facet(
        row=alt.Row("group:N", sort=names, header=header), spacing=6
    ).resolve_scale(y="independent")
    return drawn


def curves(
    title: str, lines: Sequence[Curve], starts: Mapping[str, float], num_steps: float
) -> "alt.LayerChart":
    """Figures of a training by optimizer step, with a line where each stage starts.

    Args:
        title: What is shown, with its unit.
        lines: The curves; a curve of few points shows them.
        starts: The optimizer step at which each stage starts, by its title.
        num_steps: The optimizer steps of all stages, which the axis shows.
    """
    import altair as alt

    rows = [
        {"group": line.name, "stage": line.stage, "step": step, "value": value}
        for line in lines
        for step, value in zip(line.steps, line.values, strict=True)
    ]
    legend = len(_domain(rows)) > 1
    dash = alt.StrokeDash(
        "group:N", title=None, scale=alt.Scale(domain=_domain(rows), range=_DASHES), legend=_legend(legend)
    )  # fmt: skip
    drawn = alt.Chart().encode(
        x=alt.X(
            "step:Q",
            title="optimizer step",
            scale=alt.Scale(domain=[0, num_steps], nice=False),
            axis=alt.Axis(tickMinStep=1, format="~s"),
        ),
        y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=4)),
        color=_color(rows, legend),
        detail="stage:N",
    )
    marks = [{"start": start, "stage": stage} for stage, start in starts.items()]
    boundary = alt.Chart(alt.InlineData(values=marks)).encode(x="start:Q")
    layers: list[alt.Chart] = [
        boundary.mark_rule(strokeDash=[2, 3], opacity=0.7),
        boundary.mark_text(align="left", baseline="bottom", dx=2, y=-1, fontSize=10).encode(text="stage:N"),
        drawn.mark_line(strokeWidth=1.8).encode(strokeDash=dash),
    ]  # fmt: skip
    if max(len(line.steps) for line in lines) <= _FEW_POINTS:
        layers.append(drawn.mark_point(size=20, filled=True, opacity=1))
    return _layered(layers, rows, _HEIGHT // 2, title)


def _layered(
    layers: "Sequence[alt.Chart]", rows: Sequence[dict[str, Any]], height: int, title: str = ""
) -> "alt.LayerChart":
    import altair as alt

    chart = alt.layer(
        *layers,
        data=alt.InlineData(values=list(rows)),
        title=title or alt.Undefined,
        width=_WIDTH,
        height=height,
    )
    assert isinstance(chart, alt.LayerChart)
    return chart


def _bounds(name: str, estimate: Estimate, scale: float) -> dict[str, Any]:
    return {
        name: scale * estimate.value,
        f"{name}_low": scale * estimate.low,
        f"{name}_high": scale * estimate.high,
    }


def _domain(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The groups in the order of their first row, which legends keep."""
    return list(dict.fromkeys(row["group"] for row in rows))


def _color(rows: Sequence[Mapping[str, Any]], legend: bool = True) -> "alt.Color":
    import altair as alt

    scale = alt.Scale(domain=_domain(rows))
    return alt.Color("group:N", title=None, scale=scale, legend=_legend(legend))


def _shape(rows: Sequence[Mapping[str, Any]]) -> "alt.Shape":
    import altair as alt

    scale = alt.Scale(domain=_domain(rows), range=list(_SHAPES))
    return alt.Shape("group:N", title=None, scale=scale)


def _legend(shown: bool) -> Any:
    import altair as alt

    return alt.Undefined if shown else None
