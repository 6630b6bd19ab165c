"""The command that shows, sets and rolls back the promoted checkpoint."""

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
    store: StoreOption = None,
) -> None:
    """Show the promoted checkpoint, from which nightly runs start; promote a run, or roll back."""
    if run and undo:
        raise UserError("promote: give either a run or --undo")
    settings = Settings()
    opened = open_store(settings)
    if not run and not undo:
        _show(read_registry(opened.storage), opened)
        return
    with lease_unless_alive(opened.storage, REGISTRY, settings.lease_seconds) as lease:
        if lease is None:
            night = holder(opened.storage, REGISTRY) or "a nightly run"
            raise UserError(f"{night} holds the model registry; wait for it, or cancel its run")
        if run:
            promote_run(opened, find_run(opened.storage, run))
        else:
            undo_promotion(opened.storage)
    _show(read_registry(opened.storage), opened)


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
