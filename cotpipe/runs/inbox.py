"""The inbox as nightly runs see it: what was taken in, and taking a file back out."""

from dataclasses import dataclass
from typing import Literal

from cotpipe.errors import UserError
from cotpipe.runs.nights import INBOX, new_files
from cotpipe.runs.promotion import ModelRegistry, Taken, read_registry, write_registry
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
    """The files that nightly runs took in, oldest first, then those that the next one will read."""
    registry = read_registry(store.storage)

    def of(taken: list[Taken], state: State) -> list[InboxFile]:
        records = [store.record(file.problems) for file in taken]
        counts = [record.counts["kept"] if record else None for record in records]
        return [
            InboxFile(file.name, state, count, file.problems)
            for file, count in zip(taken, counts, strict=True)
        ]

    files = of(registry.taken, "taken in") + of(registry.taken_out, "taken out")
    return files + [InboxFile(name, "new") for name in new_files(store.storage, registry)]


def take_out(storage: Storage, name: str) -> ModelRegistry:
    """Take a file back out: later nights do not use its problems, nor read it again as it is.

    The caller must hold the lease of the registry. Raises `UserError` if it was not taken in.
    """
    return _move(storage, name, "taken", "taken_out")


def put_back(storage: Storage, name: str) -> ModelRegistry:
    """Undo `take_out`. Raises `UserError` if the file was not taken out."""
    return _move(storage, name, "taken_out", "taken")


def _move(
    storage: Storage,
    name: str,
    source: Literal["taken", "taken_out"],
    target: Literal["taken", "taken_out"],
) -> ModelRegistry:
    registry = read_registry(storage)
    name = name.removeprefix(f"{INBOX}/")
    files = getattr(registry, source)
    moved = [file for file in files if file.name == name]
    if not moved:
        known = ", ".join(sorted({file.name for file in files})) or "none"
        was = "in" if source == "taken" else "out"
        raise UserError(f"no file {name!r} was taken {was}; those that were: {known}")
    left = [file for file in files if file.name != name]
    update: dict[str, object] = {source: left, target: [*getattr(registry, target), *moved]}
    registry = registry.model_copy(update=update)
    write_registry(storage, registry)
    return registry
