"""The command that shows what nightly runs took from the inbox, and takes files back out."""

from typing import Annotated

import typer
from rich.table import Table

from cotpipe.errors import UserError
from cotpipe.runs.inbox import list_inbox, put_back, take_out
from cotpipe.settings import Settings
from cotpipe.store.artifacts import Store, open_store
from flows.cli.options import StoreOption
from flows.cli.promote import held_registry
from flows.cli.terminal import Terminal


def inbox(
    out: Annotated[
        str | None,
        typer.Option(
            "--take-out", metavar="FILE", help="Take a file back out: its problems are not used."
        ),
    ] = None,
    back: Annotated[
        str | None, typer.Option("--put-back", metavar="FILE", help="Undo --take-out.")
    ] = None,
    store: StoreOption = None,
) -> None:
    """Show which files nightly runs took from the inbox, and which the next one will read."""
    if out and back:
        raise UserError("inbox: give either --take-out or --put-back")
    opened = open_store(Settings())
    if out or back:
        with held_registry(opened):
            if out:
                take_out(opened.storage, out)
            elif back:
                put_back(opened.storage, back)
    _show(opened)


def _show(store: Store) -> None:
    files, console = list_inbox(store), Terminal()
    if not files:
        console.print("nothing was taken in, and nothing new is in the inbox")
        return
    table = Table("file", "", "problems", "artifact")
    for file in files:
        table.add_row(
            file.name,
            file.state,
            "" if file.num_problems is None else str(file.num_problems),
            str(file.problems) if file.problems else "",
        )
    console.print(table)
