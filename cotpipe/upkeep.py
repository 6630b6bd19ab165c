"""Looking after a store: checking every byte of it, and removing what no kept run needs."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cotpipe.leases import holder
from cotpipe.nights import INBOX
from cotpipe.promotion import MODELS, read_models
from cotpipe.records import RECORD, SHARDS, Reference
from cotpipe.runs import Run, read_runs, remove_run
from cotpipe.store import REFRESHED, Store

_UNFINISHED_IS_KEPT = timedelta(days=7)


@dataclass(frozen=True)
class Checked:
    """What was found of one artifact."""

    reference: Reference
    damaged: list[str]  # its files that are not what the record says


def verify(store: Store, report: Callable[[int, int], None]) -> list[Checked]:
    """Hash every file of every artifact; what is damaged is marked, so that no run uses it.

    Calls `report` with how many bytes are checked, and out of how many.
    """
    records = store.records()
    sizes = [sum(file.size for file in record.files) for record in records]
    done, found = 0, []
    for record, size in zip(records, sizes, strict=True):
        damaged = store.damaged_files(record, hashing=True)
        if damaged and not store.is_marked_damaged(record):
            store.mark_damaged(record, damaged)
        found.append(Checked(record.reference, damaged))
        done += size
        report(done, sum(sizes))
    return found


@dataclass(frozen=True)
class Garbage:
    """One thing that nobody needs."""

    name: str  # its path in the store
    why: str
    num_bytes: int


def find_garbage(store: Store, keep_runs: int) -> tuple[list[Garbage], list[Run]]:
    """What the newest runs, unfinished ones, promotions and nights do not need, and the runs to forget.

    What somebody is making at the moment (a live lease) is left alone.
    """
    runs = read_runs(store.storage)
    forgotten = [run for run in runs[: max(len(runs) - keep_runs, 0)] if not _may_go_on(run)]
    promoted = read_models(store.storage).references
    kept = _needed(store, [run for run in runs if run not in forgotten], promoted) | _recent_shards(store)
    garbage: list[Garbage] = []
    for folder, files in _folders(store).items():
        if holder(store.storage, folder):
            continue
        kind, fingerprint = folder.split("/")
        reference = Reference(kind=kind, fingerprint=fingerprint)
        garbage += _of_artifact(store, reference, files, reference in kept, kept)
    return garbage, forgotten


def collect_garbage(store: Store, garbage: list[Garbage], forgotten: list[Run]) -> None:
    """Remove it: records first and marks of damage last, so that no reader meets half an artifact."""
    for item in sorted(garbage, key=lambda item: (not item.name.endswith(f"/{RECORD}"), "/damaged-" in item.name)):
        store.storage.remove(item.name)
    for run in forgotten:
        remove_run(store.storage, run)


def _may_go_on(run: Run) -> bool:
    return run.outcome != "completed" and _is_recent(run.started_at)


def _is_recent(moment: str) -> bool:
    return datetime.now(UTC) - datetime.fromisoformat(moment) < _UNFINISHED_IS_KEPT


def _needed(store: Store, runs: list[Run], others: set[Reference]) -> set[Reference]:
    """The artifacts of these runs, others, and all that these were made of."""
    pending = {reference for run in runs for reference in run.references.values()} | others
    needed: set[Reference] = set()
    while pending:
        reference = pending.pop()
        needed.add(reference)
        if record := store.record(reference):
            pending |= {Reference(kind=kind, fingerprint=value) for kind, value in record.inputs.items()} - needed
            pending |= set(record.parts) - needed
    return needed


def _recent_shards(store: Store) -> set[Reference]:
    """Shards that a generation under way, or one that is to go on, may be put together from."""
    return {record.reference for record in store.records(SHARDS) if _is_recent(record.made_at)}


def _folders(store: Store) -> dict[str, dict[str, int]]:
    """The files of every artifact's folder, with their sizes."""
    folders: dict[str, dict[str, int]] = {}
    for name, size in store.storage.sizes("").items():
        kind, *rest = name.split("/")
        if len(rest) >= 2 and kind not in (INBOX, MODELS):
            folders.setdefault(f"{kind}/{rest[0]}", {})["/".join(rest[1:])] = size
    return folders


def _of_artifact(
    store: Store, reference: Reference, files: dict[str, int], needed: bool, kept: set[Reference]
) -> list[Garbage]:
    """The parts of an artifact's folder that can go: all of it, or what is left of other attempts."""
    record = store.record(reference)
    damaged = {name.removeprefix("damaged-").removesuffix(".json") for name in files if name.startswith("damaged-")}
    sizes: dict[str, int] = {}
    for name, size in files.items():
        part = name.split("/")[0]
        sizes[part] = sizes.get(part, 0) + size

    def why(part: str) -> str | None:
        if part == REFRESHED:
            return None if store.latest(reference) in kept else "no kept run needs what took its place"
        if part.startswith("lease-"):
            return "a dead run's lease"
        if not needed:
            return "no kept run needs it"
        if any(attempt in part for attempt in damaged):
            return "damaged"
        if part == "checkpoints":
            return "the stage is finished" if record else None
        if record and record.attempt in damaged and part == RECORD:
            return "damaged"
        if part != RECORD and (record is None or part != record.attempt):
            return "left behind by a dead run"
        return None

    return [Garbage(f"{reference}/{part}", reason, size) for part, size in sizes.items() if (reason := why(part))]
