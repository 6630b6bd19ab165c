"""Nightly runs: new files in the inbox, their ingestion, and the recipe of a nightly run."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from cotpipe.data.problems.files import SUFFIXES, FileSource
from cotpipe.errors import UserError
from cotpipe.recipe.model import Recipe
from cotpipe.runs.promotion import ModelRegistry, Taken
from cotpipe.steps import problems as reading
from cotpipe.steps.runner import StepRunner
from cotpipe.store.records import Reference
from cotpipe.store.storage import Storage, file_sha256

INBOX = "inbox"
"""The directory of the store in which users place files with new problems."""


def new_files(storage: Storage, registry: ModelRegistry) -> dict[str, str]:
    """The problem files whose content no nightly run has ingested: names and SHA-256.

    Hidden files and other file types are ignored: write under a hidden name, and rename the file
    once it is complete. Files that were taken out stay out until their content changes.
    """
    known = {file.sha256 for file in registry.taken}
    found: dict[str, str] = {}
    for name in sorted(storage.sizes(INBOX)):
        if Path(name).suffix not in SUFFIXES or Path(name).name.startswith("."):
            continue
        content = storage.sha256(f"{INBOX}/{name}")
        if content not in known:
            known.add(content)
            found[name] = content
    return found


def take_in(runner: StepRunner, recipe: Recipe, name: str) -> Taken:
    """Ingest one file of the inbox as a problems artifact, with the column names of the recipe.

    Raises `UserError` if the file is incomplete, or too many of its rows are rejected.
    """
    own = recipe.problems.source
    columns = own if isinstance(own, FileSource) else FileSource(kind="file", path=name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, Path(name).name)  # a copy, since the file may change while it is read
        runner.store.storage.fetch(f"{INBOX}/{name}", path)
        _require_whole(path, name)
        source = columns.model_copy(update={"path": str(path), "test_path": None, "limit": None})
        problems = recipe.problems.model_copy(update={"source": source})
        try:
            outcome = runner.run(reading.STEP, recipe.model_copy(update={"problems": problems}), {})
        except UserError as error:
            raise UserError(str(error).replace(str(path), f"{INBOX}/{name}")) from error
        return Taken(name=name, sha256=file_sha256(path), problems=outcome.reference)


def batches_of(own: Reference, files: Sequence[Taken]) -> tuple[list[Reference], list[Reference]]:
    """All batches of problems, oldest first, and those of them whose files were taken out.

    Args:
        own: The recipe's own problems, the oldest batch.
        files: Every file that was ever taken in, oldest first.
    """
    used = {own, *(file.problems for file in files if not file.out)}
    batches = list(dict.fromkeys([own, *(file.problems for file in files)]))
    return batches, [batch for batch in batches if batch not in used]


def night_recipe(
    recipe: Recipe,
    batches: Sequence[Reference],
    registry: ModelRegistry,
    history: int,
    left_out: Sequence[Reference] = (),
) -> Recipe:
    """The recipe of a nightly run: starts from the promoted checkpoint, on all batches of problems.

    Args:
        recipe: The base recipe.
        batches: The batches of problems, oldest first.
        registry: The model registry, with the promoted checkpoint and earlier nightly runs.
        history: A failure is persistent if the problem failed in this and the previous
            `history` - 1 minings.
        left_out: Batches whose problems are not used; they only keep the ids of the others.
    """
    source = {
        "kind": "stored",
        "problems": [batch.fingerprint for batch in batches],
        "left_out": [batch.fingerprint for batch in left_out],
    }
    minings = [night.mining for night in registry.nights if night.mining]
    earlier = minings[max(len(minings) - history + 1, 0) :]
    values = recipe.model_dump()
    values["problems"]["source"] = source
    values["mining"]["history"] = [mining.fingerprint for mining in earlier]
    if registry.promoted:
        values["student"] = {"model": f"store:{registry.promoted.checkpoint}"}
    return Recipe.model_validate(values)


def _require_whole(path: Path, name: str) -> None:
    """Reject a text file that does not end with a newline, as it may still be written.

    An incomplete Parquet file cannot be read at all.
    """
    if path.suffix == ".parquet":
        return
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 1, 0))
        if file.read(1) != b"\n":
            raise UserError(
                f"{INBOX}/{name} does not end with a newline, so it may still be written; if it is "
                "complete, add one"
            )
