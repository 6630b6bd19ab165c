"""Charts drawn: as SVG in the colours of the page around it, or as a picture on white."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    import altair as alt

# Okabe and Ito's colours (jfly.uni-koeln.de/color), which people with colour blindness tell apart; the yellow
# and the light ones a little darker, for contrast on white.
_SERIES = ("#5f6368", "#0072b2", "#d55e00", "#009e73", "#b0508a", "#a87000", "#2a8cc4", "#000000")
_LIGHT = {"ink": "#1d2125", "faint": "#d9dde1", "axis": "#767c82"} | {
    f"series-{number}": color for number, color in enumerate(_SERIES)
}
_FROM_THE_PAGE = {name: f"var(--{name})" for name in _LIGHT}


def svg(chart: "alt.TopLevelMixin") -> Markup:
    """The chart as SVG; its colours are the custom properties of `page.css`, so it follows dark mode."""
    import vl_convert

    return Markup(vl_convert.vegalite_to_svg(chart.to_dict(), config=_config(_FROM_THE_PAGE)))  # noqa: S704 - Vega escapes texts


def save_png(path: Path, chart: "alt.TopLevelMixin", scale: float = 2.0) -> None:
    """Write the chart as a PNG; `scale` is the number of pixels per unit of its size."""
    import vl_convert

    config = _config(_LIGHT) | {"background": "white", "padding": 8}
    path.write_bytes(vl_convert.vegalite_to_png(chart.to_dict(), config=config, scale=scale))


def _config(colors: Mapping[str, str]) -> dict[str, Any]:
    """Vega-Lite's configuration: the look of all charts."""
    ink, faint, axis = colors["ink"], colors["faint"], colors["axis"]
    text = {"labelColor": ink, "titleColor": ink, "labelFontSize": 12, "titleFontSize": 12}
    return {
        "background": None,
        "padding": 2,
        "font": "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif",
        "axis": text
        | {
            "titleFontWeight": "normal",
            "gridColor": faint,
            "domainColor": axis,
            "tickColor": axis,
            "labelOverlap": "greedy",
            "labelSeparation": 6,
        },
        "axisX": {"grid": False},
        "legend": text
        | {"orient": "bottom", "columns": 4, "symbolStrokeWidth": 2.5, "symbolOpacity": 1},
        "header": text,
        "title": {"color": ink, "anchor": "start", "fontSize": 13, "fontWeight": 600, "offset": 16},
        "view": {"stroke": None},
        "rule": {"color": axis},
        "text": {"color": ink},
        "line": {"color": axis},
        "range": {"category": [colors[f"series-{number}"] for number in range(len(_SERIES))]},
    }
