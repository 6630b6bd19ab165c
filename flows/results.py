"""What a finished run shows in the terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cotpipe.report import CHECKPOINTS, TITLES, comparisons, number, percent, read_evaluations, summarise
from cotpipe.settings import Settings
from cotpipe.store import Reference, Store


def show_results(results: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """Print the result table, what the stages changed, and where report and checkpoint lie."""
    store = Store(Settings().store)
    folders = {kind: store.folder(Reference.model_validate(result["reference"])) for kind, result in results.items()}
    rows = read_evaluations({name: folders[f"evaluation-{name}"] / "evaluations.parquet" for name in CHECKPOINTS})
    table = Table(title=f"{len(rows['base'])} held-out problems, greedy, question only; 95 % intervals")
    for heading in ("checkpoint", "accuracy", "mean output tokens", "valid format"):
        table.add_column(heading, justify="left" if heading == "checkpoint" else "right")
    for name in CHECKPOINTS:
        row = summarise(name, rows[name])
        table.add_row(TITLES[name], percent(row.accuracy), number(row.tokens), percent(row.valid_format))
    console.print(table)
    for change in comparisons(rows)[2:]:
        console.print(f"{TITLES[change.after]} against {TITLES[change.before]}: {change.verdict}")
    _print_path(console, "report", folders["report"] / "report.md")
    _print_path(console, "student", folders["stage3"] / "model")


def _print_path(console: Console, title: str, path: Path) -> None:
    console.print(f"{title}: {path}", soft_wrap=True, highlight=False)
