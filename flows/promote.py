"""The command that shows, sets and takes back which checkpoint is the promoted one."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cotpipe.errors import UserError
from cotpipe.leases import holder, try_lease
from cotpipe.promotion import MODELS, Models, promote_run, read_models, undo_promotion
from cotpipe.runs import find_run
from cotpipe.settings import Settings
from cotpipe.store import Store, open_store
from flows.store_cli import StoreOption


def promote(
    run: Annotated[
        str | None, typer.Argument(help="A run whose stage-3 checkpoint becomes the promoted one; none: only show.")
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Let the promotion before the last one count again.")] = False,
    store: StoreOption = None,
) -> None:
    """Show the promoted checkpoint, on which nights train on; set it by hand, or take the last promotion back."""
    if run and undo:
        raise UserError("promote: name a run, or --undo, not both")
    settings = Settings(store=store) if store else Settings()
    opened = open_store(settings)
    if not run and not undo:
        _show(read_models(opened.storage), opened)
        return
    with try_lease(opened.storage, MODELS, settings.lease_seconds) as lease:
        if lease is None:
            night = holder(opened.storage, MODELS) or "a night"
            raise UserError(f"{night} is about to decide on the promoted checkpoint; wait for it, or cancel its run")
        if run:
            promote_run(opened, find_run(opened.storage, run))
        else:
            undo_promotion(opened.storage)
    _show(read_models(opened.storage), opened)


def _show(models: Models, store: Store) -> None:
    console = Console()
    if not models.promoted:
        console.print("nothing is promoted: nights start from the recipe's own student")
        return
    table = Table("promoted at (UTC)", "checkpoint", "run", "why")
    for promotion in models.promotions:
        table.add_row(promotion.promoted_at, promotion.checkpoint.fingerprint[:8], promotion.run_id, promotion.why)
    console.print(table)
    record = store.record(models.promoted.checkpoint)
    place = store.storage.location(f"{record.folder}/model") if record else "gone: promote another one, or --undo"
    console.print(f"promoted: {place}", soft_wrap=True, highlight=False)
