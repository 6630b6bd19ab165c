"""The command that shows, sets and rolls back the promoted checkpoint."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.table import Table

from cotpipe.errors import UserError
from cotpipe.runs.log import find_run
from cotpipe.runs.promotion import (
    REGISTRY,
    ModelRegistry,
    promote_run,
    read_registry,
    restore_registry,
    undo_promotion,
)
from cotpipe.settings import Settings
from cotpipe.store.artifacts import Store, open_store
from cotpipe.store.leases import holder, lease_unless_alive
from flows.cli.options import StoreOption
from flows.cli.terminal import Terminal


def promote(
    run: Annotated[
        str | None,
        typer.Argument(
            help="A run whose last checkpoint to promote; default: only show the promoted one."
        ),
    ] = None,
    undo: Annotated[
        bool, typer.Option("--undo", help="Roll back to the previous promotion.")
    ] = False,
    restore: Annotated[
        bool,
        typer.Option("--restore", help="Restore the registry's previous version."),
    ] = False,
    store: StoreOption = None,
) -> None:
    """Show the promoted checkpoint, from which nightly runs start; promote a run, or roll back."""
    if bool(run) + undo + restore > 1:
        raise UserError("promote: give one of a run, --undo and --restore")
    opened = open_store(Settings())
    if run or undo or restore:
        with held_registry(opened):
            if run:
                promote_run(opened, find_run(opened.storage, run))
            elif undo:
                undo_promotion(opened.storage)
            else:
                restore_registry(opened.storage)
    _show(read_registry(opened.storage), opened)


@contextmanager
def held_registry(store: Store) -> Iterator[None]:
    """Hold the model registry, to change it; raises `UserError` if a nightly run holds it."""
    with lease_unless_alive(store.storage, REGISTRY, Settings().lease_seconds) as lease:
        if lease is None:
            night = holder(store.storage, REGISTRY) or "a nightly run"
            raise UserError(f"{night} holds the model registry; wait for it, or cancel its run")
        yield


def _show(registry: ModelRegistry, store: Store) -> None:
    console = Terminal()
    if not registry.promoted:
        console.print("nothing is promoted: nightly runs start from the recipe's student")
        return
    table = Table("promoted at (UTC)", "checkpoint", "run", "why")
    for promotion in registry.promotions:
        table.add_row(
            promotion.promoted_at,
            promotion.checkpoint.fingerprint[:8],
            promotion.run_id,
            promotion.why,
        )
    console.print(table)
    record = store.record(registry.promoted.checkpoint)
    place = (
        store.storage.location(f"{record.folder}/model")
        if record
        else "missing: promote another run, or --undo"
    )
    console.print(f"promoted: {place}", soft_wrap=True)
