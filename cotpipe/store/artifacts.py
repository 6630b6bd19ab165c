"""The store: immutable artifacts, addressed by the fingerprint of what determines their content.

A step's output is stored at `<store>/<kind>/<fingerprint>/`. The fingerprint is a hash of the
step's name and version, the recipe fields that it reads, and the fingerprints of its inputs.

    stage2/0123.../record.json            the committed attempt, its files, sizes and checksums
    stage2/0123.../4f0c51e2/model/...     the files of that attempt
    stage2/0123.../damaged-4f0c51e2.json  marks that attempt as damaged
    stage2/0123.../refreshed.json         the artifact that replaces this one (`--refresh`)
    stage2/0123.../needs.json             what the build in progress reads
    stage2/0123.../set-aside.json         `gc` found it unneeded; a later one removes it
    stage2/0123.../lease-1.json           the run that is building it (see `leases`)
    stage2/0123.../training-state/...     what a killed stage resumes from (see `training_states`)

Invariants:

- Commits are atomic and durable. An artifact exists once its `record.json` does, which is written
  last, atomically, when the files are on the disk. A run that dies earlier leaves unreferenced
  files; a later attempt or `cotpipe gc` removes them when they are a day old.
- Each attempt writes to its own folder, which is immutable after the commit. Concurrent runs
  cannot mix their files: the first commit wins; the others check its files and return its record.
- Building an artifact is therefore idempotent: a run can be killed at any time and started again,
  and reuses everything that was committed.
- Leases only save work. If two runs hold one at the same time, a step runs twice and is committed
  once. A run that lost its lease stops before it commits.
- No clock of another machine is trusted: leases are judged by what is seen to change, ages by the
  storage's own clock.
- An attempt marked as damaged is never used again, even if its files are restored. The next
  attempt gets a new folder and replaces the record.
- Lookups (`find`, `records`) are read-only. Only uses of an artifact (`check`, `path`) mark damage.
"""

import json
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cotpipe.errors import TransientError
from cotpipe.settings import Settings
from cotpipe.store.lookup import Artifacts
from cotpipe.store.records import (
    NEEDS,
    RECORD,
    REFRESHED,
    Record,
    Reference,
    describe_file,
    digest,
    reference_of_folder,
)
from cotpipe.store.s3 import S3Storage
from cotpipe.store.storage import LocalStorage, Storage, local_files
from cotpipe.store.training_states import TRAINING_STATE

LEFTOVERS_ARE_KEPT = 24 * 3600.0
"""Seconds for which the files of an attempt without a record are kept."""


@dataclass(frozen=True)
class Draft:
    """A local folder that a step writes to, and the attempt it will be committed as."""

    path: Path
    attempt: str


class Store(Artifacts):
    """The artifacts at one address: look up, use, and build.

    >>> import tempfile
    >>> store = Store(LocalStorage(Path(tempfile.mkdtemp())))
    >>> store.find(Reference(kind="problems", fingerprint="0" * 32)) is None
    True
    """

    def wanted(self, reference: Reference, refresh: bool) -> Reference:
        """The artifact that a run should use: the latest, or the next refresh of an existing one.

        A missing artifact needs no refresh: it is built anyway, resuming from its training state.
        """
        latest = self.latest(reference)
        return self._next_refresh(reference) if refresh and self.find(latest) else latest

    def _next_refresh(self, reference: Reference) -> Reference:
        """The reference of an artifact's next refresh; stable until `put_in_place` is called."""
        return _refresh(reference, self._num_refreshes(reference) + 1)

    def within(self, shard: Reference, refreshed: Reference) -> Reference:
        """The reference of a shard in the refresh of its step; one however often that is tried."""
        return Reference(
            kind=shard.kind,
            fingerprint=digest([shard.fingerprint, "refresh of", refreshed.fingerprint]),
        )

    def put_in_place(self, reference: Reference, refreshed: Reference) -> None:
        """Make `latest` return the refreshed artifact from now on."""
        entry = {"fingerprint": refreshed.fingerprint, "number": self._num_refreshes(reference) + 1}
        self.storage.replace(f"{reference}/{REFRESHED}", json.dumps(entry).encode())

    def refreshes(self, reference: Reference) -> set[Reference]:
        """All artifacts that have replaced this one, the latest among them."""
        numbers = range(1, self._num_refreshes(reference) + 1)
        return {self.latest(reference), *(_refresh(reference, number) for number in numbers)}

    def _num_refreshes(self, reference: Reference) -> int:
        data = self.storage.read(f"{reference}/{REFRESHED}")
        return int(json.loads(data)["number"]) if data else 0

    @contextmanager
    def draft(self, reference: Reference) -> Iterator[Draft]:
        """An empty local folder for a step's output, removed on an exception.

        Removes what dead attempts left a day ago or earlier. Younger files may belong to a run that
        lost its lease and has not noticed yet.
        """
        self._remove_leftovers(reference)
        attempt = uuid.uuid4().hex[:8]
        path = self.storage.local_path(f"{reference}/{attempt}")
        if path is None:
            assert self.cache
            # The size is not known yet.
            path = self.cache.entry(f"{reference}/{attempt}", num_bytes=0)
        path.mkdir(parents=True, exist_ok=True)
        try:
            yield Draft(path, attempt)
        except BaseException:  # also on an interrupt
            shutil.rmtree(path, ignore_errors=True)
            raise
        finally:
            if self.cache:
                written = sum(info.size for info in local_files(path).values())
                self.cache.release(f"{reference}/{attempt}", written)

    def _remove_leftovers(self, reference: Reference) -> None:
        record = self.record(reference)
        kept = {record.attempt} if record else set()
        files = self.storage.files(str(reference))
        kept |= {name.split("-")[1].split(".")[0] for name in files if name.startswith("damaged-")}
        written: dict[str, float] = {}
        for name, info in files.items():
            attempt = name.split("/")[0]
            if "/" in name and attempt not in kept | {TRAINING_STATE}:
                written[attempt] = max(written.get(attempt, 0.0), info.modified)
        if written:
            now = self.storage.now()
            for attempt, newest in written.items():
                if now - newest >= LEFTOVERS_ARE_KEPT:
                    self.storage.remove(f"{reference}/{attempt}")

    def note_needs(self, reference: Reference, needs: Iterable[Reference]) -> None:
        """Name further artifacts that a build in progress reads, so that `gc` keeps them.

        What was named before stays so until the commit: an interrupted build comes back to it.
        """
        listed = {str(need) for need in needs}
        if listed:
            listed |= {str(need) for need in self.needs(reference)}
            self.storage.replace(f"{reference}/{NEEDS}", json.dumps(sorted(listed)).encode())

    def needs(self, reference: Reference) -> set[Reference]:
        """The artifacts that an interrupted build, or one in progress, reads."""
        data = self.storage.read(f"{reference}/{NEEDS}")
        found = map(reference_of_folder, json.loads(data)) if data else ()
        return {need for need in found if need}

    def commit(self, draft: Draft, record: Record) -> Record:
        """Commit a draft, writing the record last; returns the record that won.

        If another run has committed the same artifact in the meantime, its commit wins, unless it
        turns out to be damaged. Raises `TransientError` if the draft's files are gone.
        """
        files = [
            describe_file(path, draft.path)
            for path in sorted(draft.path.rglob("*"))
            if path.is_file()
        ]
        if not files and self.find(record.reference) is None:
            raise TransientError(
                f"{record.reference}: the files of this attempt were removed while it was at work; "
                "run again"
            )
        complete = record.model_copy(update={"files": files, "attempt": draft.attempt})
        self.storage.put_folder(draft.path, complete.folder)
        name, content = f"{complete.reference}/{RECORD}", complete.model_dump_json(indent=2)
        self._remove_damaged_record(complete.reference)
        while not self.storage.create(name, content.encode()):
            if winner := self.check(complete.reference):
                self.storage.remove(complete.folder)
                complete = winner
                break
            self._remove_damaged_record(complete.reference)
        self.storage.remove_files([f"{complete.reference}/{NEEDS}"])
        return complete

    def _remove_damaged_record(self, reference: Reference) -> None:
        record = self.record(reference)
        if record and self.is_marked_damaged(record):
            self.storage.remove(f"{reference}/{RECORD}")


def _refresh(reference: Reference, number: int) -> Reference:
    fingerprint = digest([reference.fingerprint, "refresh", number])
    return Reference(kind=reference.kind, fingerprint=fingerprint)


def open_storage(settings: Settings) -> Storage:
    """The storage at `settings.store`."""
    if settings.store.startswith("s3://"):
        return S3Storage(settings.store, settings)
    return LocalStorage(Path(settings.store))


def open_store(settings: Settings, check: bool = True) -> Store:
    """Open the store at `settings.store`.

    Raises `UserError` if it cannot be reached; `check=False` skips that check.
    """
    storage = open_storage(settings)
    if check:
        storage.check()
    return Store(storage, settings.cache.expanduser(), settings.cache_gb * 1e9)
