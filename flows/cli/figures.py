"""Tables of the figures of an evaluation."""

from collections.abc import Sequence
from itertools import groupby

from rich.table import Table

from cotpipe.report.figures import Figure
from cotpipe.report.statistics import Change, Estimate
from cotpipe.report.summary import number, percent
from flows.cli.terminal import Terminal


def show_figures(figures: Sequence[Figure], console: Terminal) -> None:
    """Print a table per group: a line per figure, a column per checkpoint and for the difference."""
    for side, name in dict.fromkeys((one.of, one.model) for one in figures):
        if name:
            console.print(f"{side}: {name}", soft_wrap=True)
    for group, members in groupby(figures, key=lambda figure: figure.group):
        console.print(_table(group, list(members)))
    console.print(
        "95 % intervals in brackets; a difference is first minus second; the answers: cotpipe sql "
        "\"from evaluations where kind = 'evaluation'\"",
        style="dim",
        soft_wrap=True,
    )


def _table(group: str, figures: Sequence[Figure]) -> Table:
    lines: dict[str, dict[str, Figure]] = {}
    for figure in figures:
        lines.setdefault(figure.name, {})[figure.of] = figure
    sides = list(dict.fromkeys(figure.of for figure in figures))
    tested = any(figure.p_value is not None for figure in figures)
    table = Table(title=group, title_justify="left")
    table.add_column("")
    for heading in (*sides, *(["p"] if tested else []), "problems"):
        table.add_column(heading, justify="right")
    for name, line in lines.items():
        cells = [_cell(line[side]) if side in line else "" for side in sides]
        if tested:
            p_value = line["difference"].p_value if "difference" in line else None
            cells.append("" if p_value is None else f"{p_value:.2g}")
        problems = dict.fromkeys(str(figure.problems) for figure in line.values())
        table.add_row(name, *cells, " / ".join(problems))
    return table


def _cell(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return f"{figure.value:.0f}" if figure.unit == "tokens" else f"{100 * figure.value:.1f} %"
    show = number if figure.unit == "tokens" else percent
    if figure.of == "difference":
        return show(Change(figure.value, figure.low, figure.high, p_value=1.0))
    return show(Estimate(figure.value, figure.low, figure.high))
