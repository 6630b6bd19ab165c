"""The command that hands a student over, as a folder."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from cotpipe.report.plain import visible
from cotpipe.settings import Settings
from cotpipe.store.artifacts import open_store
from flows.cli.options import DebugOption, StoreOption


def export(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="A run id, a unique part of it, `last`, or `promoted`."),
    ],
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where to; a folder that is new or empty.")
    ],
    stage: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The stage whose checkpoint to write; default: the last one that is finished.",
        ),
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(
            metavar="ORG/NAME",
            help="Also upload the folder to the Hugging Face hub, as a new private model.",
        ),
    ] = None,
    store: StoreOption = None,
    debug: DebugOption = False,
) -> None:
    """Write the student of a run as a Hugging Face folder, with its model card and recipe.

    transformers, vLLM and lm-evaluation-harness load it as it is; `README.md` says how to ask it, what
    it reached, and where it comes from.
    """
    from cotpipe.hub import push_to_hub, require_free_on_hub
    from cotpipe.runs.export import export_student

    if push:
        require_free_on_hub(push)
    written = export_student(open_store(Settings()), run, stage, folder)
    lines = [
        f"{written}: {folder.resolve()}",
        f"measure it: cotpipe evaluate {folder} --recipe {folder / 'recipe.yaml'}",
    ]
    sys.stdout.write(visible("\n".join(lines)) + "\n")
    if push:
        sys.stdout.write(visible(f"on the hub, private: {push_to_hub(folder, push)}") + "\n")
