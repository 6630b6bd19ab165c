"""The inbox as nightly runs see it: what was taken in, and taking a file back out."""

from dataclasses import dataclass
from typing import Literal

from cotpipe.errors import UserError
from cotpipe.runs.nights import INBOX, new_files
from cotpipe.runs.promotion import ModelRegistry, read_registry, write_registry
from cotpipe.store.artifacts import Store
from cotpipe.store.records import Reference
from cotpipe.store.storage import Storage

State = Literal["taken in", "taken out", "new"]


@dataclass(frozen=True)
class InboxFile:
    """A file, by its content, and what nightly runs do with it."""

    name: str
    state: State
    num_problems: int | None = None  # None until it is taken in
    problems: Reference | None = None


def list_inbox(store: Store) -> list[InboxFile]:
    """The files that nightly runs took in or out, oldest first, then those that are new."""
    registry = read_registry(store.storage)
    records = [store.record(file.problems) for file in registry.taken]
    files = [
        InboxFile(
            file.name,
            "taken out" if file.out else "taken in",
            record.counts["kept"] if record else None,
            file.problems,
        )
        for file, record in zip(registry.taken, records, strict=True)
    ]
    return files + [InboxFile(name, "new") for name in new_files(store.storage, registry)]


def take_out(storage: Storage, name: str) -> ModelRegistry:
    """Take a file back out: later nights do not use its problems, nor read it again as it is.

    The caller must hold the lease of the registry. Raises `UserError` if it was not taken in.
    """
    return _mark(storage, name, out=True)


def put_back(storage: Storage, name: str) -> ModelRegistry:
    """Undo `take_out`. Raises `UserError` if the file was not taken out."""
    return _mark(storage, name, out=False)


def _mark(storage: Storage, name: str, out: bool) -> ModelRegistry:
    """Files keep their place: the order is that of their age, and newer answers count."""
    registry = read_registry(storage)
    name = name.removeprefix(f"{INBOX}/")
    others = {file.name for file in registry.taken if file.out != out}
    if name not in others:
        known = ", ".join(sorted(others)) or "none"
        raise UserError(
            f"no file {name!r} was taken {'in' if out else 'out'}; those that were: {known}"
        )
    taken = [
        file.model_copy(update={"out": out}) if file.name == name else file
        for file in registry.taken
    ]
    registry = registry.model_copy(update={"taken": taken})
    write_registry(storage, registry)
    return registry
