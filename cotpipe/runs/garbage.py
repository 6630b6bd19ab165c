"""Garbage collection in two phases: what nothing needs is set aside, and removed by a later `gc`.

An artifact is needed if a kept run, the model registry, or a build in progress names it, or if one of
those was made from it. Ages are read from the storage's own clock. Setting aside writes one small
file, `set-aside.json`, beside the artifact; whoever uses the artifact removes it again. Only what has
been set aside for the whole grace period is removed, after another look at it and at the runs.
"""

import logging
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cotpipe.runs.comparisons import compared_runs
from cotpipe.runs.folders import DAMAGED, Files, artifact_folders, looks_own, why_of_part
from cotpipe.runs.log import FOLDER, Run, read_runs
from cotpipe.runs.promotion import read_registry
from cotpipe.store.artifacts import Store
from cotpipe.store.leases import is_lease
from cotpipe.store.lookup import READS_AT_ONCE
from cotpipe.store.records import (
    NEEDS,
    RECORD,
    REFRESHED,
    SET_ASIDE,
    Record,
    Reference,
    reference_of_folder,
)
from cotpipe.store.storage import FileInfo

logger = logging.getLogger(__name__)

_UNFINISHED_IS_KEPT = 7 * 24 * 3600.0
"""Seconds since its last heartbeat for which an unfinished run is kept."""
_LEASE_IS_KEPT = 3600.0
"""Seconds since its last heartbeat for which a lease stands for a build in progress."""
_FINGERPRINT = re.compile(r"\b[0-9a-f]{32}\b")


@dataclass(frozen=True)
class Garbage:
    """An artifact's folder, a part of it, or a run's record, that nothing needs."""

    name: str  # its path in the store
    why: str
    files: tuple[str, ...]  # paths in the store
    num_bytes: int
    ready: bool  # whether its grace period is over
    mark: str | None = None  # the file that sets it aside; None if it only has to age


class Look:
    """What one look at a store finds: what is needed, and what is garbage."""

    def __init__(self, store: Store, keep_runs: int, grace: float) -> None:
        """Look at a store.

        Args:
            store: The store.
            keep_runs: Number of newest runs to keep.
            grace: Seconds for which garbage is kept.
        """
        self._store, self._grace = store, grace
        self.now = store.storage.now()
        self.files = store.storage.files("")
        self.folders = artifact_folders(self.files)
        runs = read_runs(store.storage)
        compared = compared_runs(runs, self.files)
        old = runs[: max(len(runs) - keep_runs, 0)]
        self._forgotten = [
            run for run in old if run.run_id not in compared and not self._may_go_on(run)
        ]
        self.kept_runs = [run for run in runs if run not in self._forgotten]
        self._records = store.listed_records(self._having(RECORD))
        self._refreshes = self._read_refreshes()
        self.needed: set[Reference] = set()
        registry = read_registry(store.storage).references
        self.add_needed(registry | self._in_progress() | self._named_by(self.kept_runs))

    def garbage(self) -> Iterator[Garbage]:
        """All garbage: set aside or not, ready to be removed or not."""
        unneeded = []
        for folder, files in self.folders.items():
            reference = reference_of_folder(folder)
            if reference is None or self._is_in_progress(files):
                continue
            if reference not in self.needed:
                unneeded.append(reference)
            elif reference in self._records if RECORD in files else looks_own(files):
                yield from self._old_parts(reference, files)
        for reference in filter(self._is_of_this_store, unneeded):
            folder = str(reference)
            if files := self._without_pointer(folder, self.folders[folder]):
                yield self._set_aside(folder, "no kept run needs it", files, SET_ASIDE)
        runs = {f"{run.run_id}.json" for run in self._forgotten}
        files = {name.split("/")[1]: info for name, info in self.files.items() if _is_of_run(name)}
        for name in sorted(runs & files.keys()):
            mark = f"{name}.{SET_ASIDE}"
            own = {one: files[one] for one in (name, mark) if one in files}
            yield self._set_aside(FOLDER, "an old run", own, mark)

    def taken_back(self) -> list[str]:
        """The marks of what was set aside and is needed again."""
        marks = [
            f"{folder}/{SET_ASIDE}"
            for folder, files in self.folders.items()
            if SET_ASIDE in files and reference_of_folder(folder) in self.needed
        ]
        kept = {f"{FOLDER}/{run.run_id}.json.{SET_ASIDE}" for run in self.kept_runs}
        return marks + sorted(kept & self.files.keys())

    def add_needed(self, references: Iterable[Reference]) -> None:
        """Add artifacts, and all that they were or are being made from, to the needed ones."""
        pending = set(references) - self.needed
        with ThreadPoolExecutor(READS_AT_ONCE) as pool:
            while pending:
                self.needed |= pending
                found = set().union(*pool.map(self._uses, pending))
                pending = found - self.needed

    def add_runs(self, runs: Iterable[Run]) -> None:
        """Add what runs that wrote since need."""
        self.add_needed(self._named_by(runs))

    def _uses(self, reference: Reference) -> set[Reference]:
        files = self.folders.get(str(reference), {})
        record = self._records.get(reference)
        found = set(record.parts) if record else set()
        for kind, fingerprint in (record.inputs if record else {}).items():
            found.add(Reference(kind=kind, fingerprint=fingerprint))
        if NEEDS in files:
            found |= self._store.needs(reference)
        if REFRESHED in files:
            found.add(self._store.latest(reference))
        return found

    def _having(self, name: str) -> dict[Reference, FileInfo]:
        """The artifacts whose folders hold a file of this name."""
        chosen = {folder: files[name] for folder, files in self.folders.items() if name in files}
        found = {reference_of_folder(folder): info for folder, info in chosen.items()}
        return {reference: info for reference, info in found.items() if reference}

    def _is_of_this_store(self, reference: Reference) -> bool:
        """Whether its folder holds an artifact; warns of one that only has such a name."""
        files = self.folders[str(reference)]
        if RECORD in files:
            return reference in self._records
        if not looks_own(files):
            logger.warning("skipped: %s holds files that are not of this store", reference)
            return False
        return True

    def _read_refreshes(self) -> dict[str, set[Reference]]:
        """What has replaced an artifact, by the folder of the artifact."""
        chosen = self._having(REFRESHED)
        with ThreadPoolExecutor(READS_AT_ONCE) as pool:
            return dict(zip(map(str, chosen), pool.map(self._store.refreshes, chosen), strict=True))

    def _without_pointer(self, folder: str, files: Files) -> Files:
        """The files but for the one that names the refreshed artifact, while there is any."""
        refreshes = self._refreshes.get(folder, set())
        stored = any(str(one) in self.folders for one in refreshes)
        if stored or refreshes & self.needed:
            return {name: info for name, info in files.items() if name != REFRESHED}
        return files

    def record(self, folder: str) -> Record | None:
        """The record of an artifact that was looked at."""
        reference = reference_of_folder(folder)
        return self._records.get(reference) if reference else None

    def is_pointer_needed(self, folder: str) -> bool:
        """Whether a run has come to need what has replaced an artifact."""
        return bool(self._refreshes.get(folder, set()) & self.needed)

    def _may_go_on(self, run: Run) -> bool:
        written = self.files.get(f"{FOLDER}/{run.run_id}.json")  # None: it has just begun
        recent = written is None or self.now - written.modified < _UNFINISHED_IS_KEPT
        return run.outcome != "completed" and recent

    def _named_by(self, runs: Iterable[Run]) -> set[Reference]:
        """What runs made or planned, and what their recipes name: batches, a checkpoint."""
        runs = list(runs)
        named = {found for run in runs for found in _FINGERPRINT.findall(run.model_dump_json())}
        planned = {reference for run in runs for reference in run.references.values()}
        stored = map(reference_of_folder, self.folders)
        return planned | {one for one in stored if one and one.fingerprint in named}

    def _in_progress(self) -> set[Reference]:
        busy = [folder for folder, files in self.folders.items() if self._is_in_progress(files)]
        return {reference for reference in map(reference_of_folder, busy) if reference}

    def _is_in_progress(self, files: Files) -> bool:
        return any(
            is_lease(name) and self.now - info.modified < _LEASE_IS_KEPT
            for name, info in files.items()
        )

    def _set_aside(self, folder: str, why: str, files: Files, mark: str) -> Garbage:
        """What is marked counts from its mark, unless a file was written after that."""
        newest = max((info.modified for name, info in files.items() if name != mark), default=0.0)
        marked = files.get(mark)
        since = marked.modified if marked and marked.modified >= newest else None
        name = folder if mark == SET_ASIDE else f"{folder}/{mark.removesuffix(f'.{SET_ASIDE}')}"
        return Garbage(
            name=name,
            why=why,
            files=tuple(f"{folder}/{one}" for one in files),
            num_bytes=sum(info.size for info in files.values()),
            ready=since is not None and self.now - since >= self._grace,
            mark=f"{folder}/{mark}",
        )

    def _old_parts(self, reference: Reference, files: Files) -> Iterator[Garbage]:
        """The parts of a needed artifact's folder that belong to no living attempt."""
        record = self._records.get(reference)
        parts: dict[str, Files] = {}
        for name, info in files.items():
            parts.setdefault(name.split("/")[0], {})[name] = info
        for part, own in parts.items():
            why = why_of_part(part, record, files)
            marks = {name: files[name] for name in files if name.startswith(DAMAGED)}
            dated = own | marks if why == "damaged" else own  # it was good until it was marked
            age = self.now - max(info.modified for info in dated.values())
            if why and age >= self._grace:
                names = tuple(f"{reference}/{name}" for name in own)
                size = sum(info.size for info in own.values())
                yield Garbage(f"{reference}/{part}", why, names, size, ready=True)


def _is_of_run(name: str) -> bool:
    return name.startswith(f"{FOLDER}/") and name.count("/") == 1


def find_garbage(store: Store, keep_runs: int, grace: float) -> tuple[Look, list[Garbage]]:
    """Everything that kept runs, the model registry and builds in progress do not need.

    Args:
        store: The store.
        keep_runs: Number of newest runs to keep, besides unfinished ones that wrote in the last week.
        grace: Seconds for which garbage is kept.
    """
    look = Look(store, keep_runs, grace)
    return look, list(look.garbage())
