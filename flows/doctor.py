"""The command that says whether a recipe can run here."""

from typing import Annotated

import typer
from rich.console import Console

from cotpipe.errors import RunError
from cotpipe.recipes import load_recipe
from cotpipe.settings import Settings
from flows.store_cli import StoreOption

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(
    recipe: Annotated[str, typer.Option(help="A YAML file, or the name of a shipped recipe.")] = "demo",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a field: stage2.micro_batch=2."),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Check versions, store, Prefect's server, problems, models and memory; say for each what to do."""
    from cotpipe.doctor import examine

    console = Console()
    settings = Settings(store=store) if store else Settings()
    failed = 0
    for finding in examine(load_recipe(recipe, set_ or []), settings):
        colour = _COLOURS[finding.state]
        console.print(f"[{colour}]{finding.state:<5}[/]", finding.name, highlight=False, end=": ")
        console.print(finding.text, markup=False, highlight=False, soft_wrap=True)
        failed += finding.state == "fail"
    if failed:
        raise RunError(f"{failed} check{'s' if failed > 1 else ''} failed; each line says the way out")
