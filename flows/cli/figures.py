"""Tables of the figures of an evaluation."""

from collections.abc import Sequence
from itertools import groupby

from rich.table import Table

from cotpipe.report.figures import CHANGE, Figure
from cotpipe.report.statistics import Change, Estimate
from cotpipe.report.summary import number, percent
from flows.cli.terminal import Terminal


def show_figures(figures: Sequence[Figure], console: Terminal) -> None:
    """Print a table per group: a line per figure, a column per checkpoint and for the change."""
    for group, members in groupby(figures, key=lambda figure: figure.group):
        lines: dict[str, dict[str, Figure]] = {}
        for figure in members:
            lines.setdefault(figure.name, {})[figure.checkpoint] = figure
        columns = list(dict.fromkeys(name for line in lines.values() for name in line))
        table = Table(title=group, title_justify="left")
        table.add_column("")
        for name in columns:
            table.add_column(name, justify="right")
        table.add_column("problems", justify="right")
        for name, line in lines.items():
            problems = {str(line[column].problems): None for column in columns if column in line}
            cells = [_cell(line[column]) if column in line else "" for column in columns]
            table.add_row(name, *cells, " / ".join(problems))
        console.print(table)
    console.print(
        '95 % intervals in brackets; the answers: cotpipe sql "from evaluations where kind = '
        "'evaluation'\"",
        style="dim",
        soft_wrap=True,
    )


def _cell(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return f"{figure.value:.0f}" if figure.unit == "tokens" else f"{100 * figure.value:.1f} %"
    show = number if figure.unit == "tokens" else percent
    if figure.checkpoint != CHANGE:
        return show(Estimate(figure.value, figure.low, figure.high))
    p_value = 1.0 if figure.p_value is None else figure.p_value
    text = show(Change(figure.value, figure.low, figure.high, p_value))
    return text if figure.p_value is None else f"{text}, p = {figure.p_value:.2g}"
