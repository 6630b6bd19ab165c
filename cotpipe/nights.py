"""Nightly runs: which files of the inbox are new, taking one in, and the recipe of a night."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from cotpipe.config import FileSource, Recipe
from cotpipe.curriculum import STEPS
from cotpipe.errors import UserError
from cotpipe.problems.sources import SUFFIXES
from cotpipe.promotion import Models, Taken
from cotpipe.records import Reference
from cotpipe.steps.step import StepRunner
from cotpipe.storage import Storage

INBOX = "inbox"
"""The store's folder into which people put files with new problems."""


def new_files(storage: Storage, models: Models) -> dict[str, int]:
    """The names and sizes of problem files that no night has taken in.

    Files of other kinds and hidden ones are left alone: write a file under such a name and rename it when it is whole.
    """
    known = {(file.name, file.size) for file in models.taken}
    return {
        name: size
        for name, size in sorted(storage.sizes(INBOX).items())
        if Path(name).suffix in SUFFIXES and not Path(name).name.startswith(".") and (name, size) not in known
    }


def take_in(runner: StepRunner, recipe: Recipe, name: str) -> Taken:
    """Make the problems of one file of the inbox an artifact; its columns are called as in the recipe's own file.

    Raises `UserError` for a file that is not whole, or that has too many unusable rows.
    """
    own = recipe.problems.source
    columns = own if isinstance(own, FileSource) else FileSource(kind="file", path=name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, Path(name).name)  # what is read here nobody changes meanwhile
        runner.store.storage.fetch(f"{INBOX}/{name}", path)
        _require_whole(path, name)
        source = columns.model_copy(update={"path": str(path), "test_path": None, "limit": None})
        problems = recipe.problems.model_copy(update={"source": source})
        try:
            outcome = runner.run(STEPS["problems"], recipe.model_copy(update={"problems": problems}), {})
        except UserError as error:
            raise UserError(str(error).replace(str(path), f"{INBOX}/{name}")) from error
        return Taken(name=name, size=path.stat().st_size, problems=outcome.reference)


def night_recipe(recipe: Recipe, batches: Sequence[Reference], models: Models, history: int) -> Recipe:
    """The recipe of a night: from the promoted checkpoint on, over all batches of problems, the newest first.

    A failure is persistent if tonight's mining and those of the `history` - 1 nights before agree.
    """
    source = {"kind": "stored", "problems": [batch.fingerprint for batch in batches]}
    minings = [night.mining.fingerprint for night in models.nights][max(len(models.nights) - history + 1, 0) :]
    values = recipe.model_dump()
    values["problems"]["source"] = source
    values["mining"]["history"] = minings
    if models.promoted:
        values["student"] = {"model": f"store:{models.promoted.checkpoint}"}
    return Recipe.model_validate(values)


def _require_whole(path: Path, name: str) -> None:
    """A text file that is still being written mostly ends within a line; half a Parquet file cannot be read at all."""
    if path.suffix == ".parquet":
        return
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 1, 0))
        if file.read(1) != b"\n":
            raise UserError(f"{INBOX}/{name} ends within a line, as if it were still being written; end it with one")
