"""Arguments and options shared by several commands."""

import os
from typing import Annotated

import typer

from cotpipe.recipe.files import shipped_recipes


def _set_store(address: str | None) -> str | None:
    """Set COTPIPE_STORE, from which this process and its children read the store's address."""
    if address:
        os.environ["COTPIPE_STORE"] = address
    return address


StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="PLACE",
        callback=_set_store,
        help="The store: a directory, or s3://bucket/prefix.",
        show_default="$COTPIPE_STORE, else ./store",
    ),
]
RecipeOption = Annotated[
    str, typer.Option(help=f"A YAML file, or one of: {', '.join(shipped_recipes())}.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a recipe field, such as stage2.trainer.learning_rate=2e-6; can be repeated.",
    ),
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run id, a unique part of it, or `last`.")
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks and the Prefect log.")]
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Only print which steps are reused, which will run, and why."),
]
