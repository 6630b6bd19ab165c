"""Store maintenance: verify every byte, and collect garbage."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cotpipe.runs.log import Run, read_runs, remove_run
from cotpipe.runs.nights import INBOX
from cotpipe.runs.promotion import REGISTRY, read_registry
from cotpipe.store.artifacts import Store
from cotpipe.store.leases import holder
from cotpipe.store.records import RECORD, REFRESHED, SHARDS, Reference
from cotpipe.store.training_states import TRAINING_STATE

_UNFINISHED_IS_KEPT = timedelta(days=7)


@dataclass(frozen=True)
class Checked:
    """The result of verifying one artifact."""

    reference: Reference
    damaged: list[str]  # files that do not match the record


def verify(store: Store, report: Callable[[int, int], None]) -> list[Checked]:
    """Hash every file of every artifact, and mark damaged artifacts so that no run uses them.

    Calls `report` with the number of bytes verified and the total.
    """
    records = store.records()
    sizes = [sum(file.size for file in record.files) for record in records]
    done, found = 0, []
    for record, size in zip(records, sizes, strict=True):
        damaged = store.damaged_files(record)
        if damaged and not store.is_marked_damaged(record):
            store.mark_damaged(record, damaged)
        found.append(Checked(record.reference, damaged))
        done += size
        report(done, sum(sizes))
    return found


@dataclass(frozen=True)
class Garbage:
    """One file or directory to remove."""

    name: str  # its path in the store
    why: str
    num_bytes: int


def find_garbage(store: Store, keep_runs: int) -> tuple[list[Garbage], list[Run]]:
    """Everything that kept runs and the model registry do not need, and the runs to delete.

    The newest `keep_runs` runs and recent unfinished ones are kept. Artifacts under a live lease
    are left alone.
    """
    runs = read_runs(store.storage)
    forgotten = [run for run in runs[: max(len(runs) - keep_runs, 0)] if not _may_go_on(run)]
    promoted = read_registry(store.storage).references
    kept = _needed(store, [run for run in runs if run not in forgotten], promoted) | _recent_shards(
        store
    )
    garbage: list[Garbage] = []
    for folder, files in _folders(store).items():
        if holder(store.storage, folder):
            continue
        kind, fingerprint = folder.split("/")
        reference = Reference(kind=kind, fingerprint=fingerprint)
        garbage += _of_artifact(store, reference, files, reference in kept, kept)
    return garbage, forgotten


def collect_garbage(store: Store, garbage: list[Garbage], forgotten: list[Run]) -> None:
    """Remove it, records first and damage marks last, so no reader sees a partial artifact."""
    for item in sorted(
        garbage, key=lambda item: (not item.name.endswith(f"/{RECORD}"), "/damaged-" in item.name)
    ):
        store.storage.remove(item.name)
    for run in forgotten:
        remove_run(store.storage, run)


def _may_go_on(run: Run) -> bool:
    return run.outcome != "completed" and _is_recent(run.started_at)


def _is_recent(moment: str) -> bool:
    return datetime.now(UTC) - datetime.fromisoformat(moment) < _UNFINISHED_IS_KEPT


def _needed(store: Store, runs: list[Run], others: set[Reference]) -> set[Reference]:
    """The artifacts of these runs, the others, and everything these were made from."""
    pending = {reference for run in runs for reference in run.references.values()} | others
    needed: set[Reference] = set()
    while pending:
        reference = pending.pop()
        needed.add(reference)
        if record := store.record(reference):
            pending |= {
                Reference(kind=kind, fingerprint=value) for kind, value in record.inputs.items()
            } - needed
            pending |= set(record.parts) - needed
    return needed


def _recent_shards(store: Store) -> set[Reference]:
    """Shards that a running or interrupted generation may still use."""
    return {record.reference for record in store.records(SHARDS) if _is_recent(record.made_at)}


def _folders(store: Store) -> dict[str, dict[str, int]]:
    """The files in every artifact's directory, with their sizes in bytes."""
    folders: dict[str, dict[str, int]] = {}
    for name, size in store.storage.sizes("").items():
        kind, *rest = name.split("/")
        if len(rest) >= 2 and kind not in (INBOX, REGISTRY):
            folders.setdefault(f"{kind}/{rest[0]}", {})["/".join(rest[1:])] = size
    return folders


def _of_artifact(
    store: Store, reference: Reference, files: dict[str, int], needed: bool, kept: set[Reference]
) -> list[Garbage]:
    """The removable parts of an artifact's directory: all of it, or leftovers of other attempts."""
    record = store.record(reference)
    damaged = {
        name.removeprefix("damaged-").removesuffix(".json")
        for name in files
        if name.startswith("damaged-")
    }
    sizes: dict[str, int] = {}
    for name, size in files.items():
        part = name.split("/")[0]
        sizes[part] = sizes.get(part, 0) + size

    def why(part: str) -> str | None:
        if part == REFRESHED:
            return None if store.latest(reference) in kept else "no kept run needs its replacement"
        if part.startswith("lease-"):
            return "a stale lease"
        if not needed:
            return "no kept run needs it"
        if any(attempt in part for attempt in damaged):
            return "damaged"
        if part == TRAINING_STATE:
            return "the stage is finished" if record else None
        if record and record.attempt in damaged and part == RECORD:
            return "damaged"
        if part != RECORD and (record is None or part != record.attempt):
            return "leftover of an interrupted run"
        return None

    return [
        Garbage(f"{reference}/{part}", reason, size)
        for part, size in sizes.items()
        if (reason := why(part))
    ]
