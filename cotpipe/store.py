"""The store: a step's output lives at `<store>/<kind>/<fingerprint>/`, complete once its `record.json` is there.

A fingerprint is the hash of what decides the content: the step's name and version, the recipe fields that it reads,
and the fingerprints of its inputs. Inside lies one folder per attempt to make it, which is never changed once the
record names it; so two runs that make the same artifact at the same time can never mix their files.

    stage2/0123.../record.json            names the attempt that counts, its files, sizes and checksums
    stage2/0123.../4f0c51e2/model/...     the files of that attempt
    stage2/0123.../damaged-4f0c51e2.json  says that this attempt is not to be used any more
    stage2/0123.../refreshed.json         names the artifact that takes this one's place (`--refresh`)
    stage2/0123.../lease-1.json           names the run that is making it (see `leases`)
    stage2/0123.../checkpoints/...        what a stage in training can go on from (see `checkpoints`)
"""

import json
import logging
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cotpipe.cache import Cache
from cotpipe.errors import RunError
from cotpipe.records import RECORD, Record, Reference, StoredFile, describe_file, digest, read_record
from cotpipe.s3 import S3Storage
from cotpipe.settings import Settings
from cotpipe.storage import LocalStorage, Storage, file_sha256

logger = logging.getLogger(__name__)

REFRESHED = "refreshed.json"
_READS_AT_ONCE = 16


@dataclass(frozen=True)
class Draft:
    """A local folder to fill, and the attempt that it will be."""

    path: Path
    attempt: str


class Store:
    """Artifacts at one address.

    >>> import tempfile
    >>> store = Store(LocalStorage(Path(tempfile.mkdtemp())))
    >>> store.find(Reference(kind="problems", fingerprint="0" * 32)) is None
    True
    """

    def __init__(self, storage: Storage, cache: Cache | None = None) -> None:
        assert cache or isinstance(storage, LocalStorage), "what lies elsewhere needs a local cache"
        self.storage = storage
        self._cache = cache

    def latest(self, reference: Reference) -> Reference:
        """The artifact itself, or the one that a `--refresh` has put in its place."""
        data = self.storage.read(f"{reference}/{REFRESHED}")
        return Reference(kind=reference.kind, fingerprint=json.loads(data)["fingerprint"]) if data else reference

    def wanted(self, reference: Reference, refresh: bool) -> Reference:
        """The artifact that a run is to use: the latest one, or, to refresh one that is there, the next.

        What is not there needs no refresh: it is made in any case, and goes on from its training checkpoint.
        """
        latest = self.latest(reference)
        return self._next_refresh(reference) if refresh and self.find(latest) else latest

    def _next_refresh(self, reference: Reference) -> Reference:
        """The name that the next refresh of an artifact takes; the same until `put_in_place` is called."""
        number = self._num_refreshes(reference) + 1
        return Reference(kind=reference.kind, fingerprint=digest([reference.fingerprint, "refresh", number]))

    def put_in_place(self, reference: Reference, refreshed: Reference) -> None:
        """Let `latest` find the refreshed artifact from now on."""
        entry = {"fingerprint": refreshed.fingerprint, "number": self._num_refreshes(reference) + 1}
        self.storage.replace(f"{reference}/{REFRESHED}", json.dumps(entry).encode())

    def _num_refreshes(self, reference: Reference) -> int:
        data = self.storage.read(f"{reference}/{REFRESHED}")
        return int(json.loads(data)["number"]) if data else 0

    def record(self, reference: Reference) -> Record | None:
        """The record of an artifact, whatever its files are like.

        Raises `UserError` for the record of a newer cotpipe, `RunError` for one that cannot be read.
        """
        data = self.storage.read(f"{reference}/{RECORD}")
        return read_record(data, str(reference)) if data is not None else None

    def records(self, kind: str = "", damaged: bool = True) -> list[Record]:
        """The records of all complete artifacts (of one kind), with or without those that are marked as damaged."""
        names = {Path(kind, name).as_posix() for name in self.storage.sizes(kind)}
        references = [name.split("/")[:2] for name in names if name.split("/")[-1] == RECORD]
        with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
            found = pool.map(lambda parts: self.record(Reference(kind=parts[0], fingerprint=parts[1])), references)
            chosen = [record for record in found if record and (damaged or _damage_mark(record) not in names)]
        return sorted(chosen, key=lambda record: (record.kind, record.made_at, record.fingerprint))

    def find(self, reference: Reference) -> Record | None:
        """The record of a complete, undamaged artifact; None where there is none.

        Every file is checked: its size, and its checksum where the store is a local disk. What is damaged is
        reported and marked, so that it is not used again.
        """
        record = self.record(reference)
        if record is None or self.is_marked_damaged(record):
            return None
        if damaged := self.damaged_files(record, hashing=isinstance(self.storage, LocalStorage)):
            self.mark_damaged(record, damaged)
            return None
        return record

    def damaged_files(self, record: Record, hashing: bool) -> list[str]:
        """The files that are not what the record says: missing, of another size, or (if `hashing`) changed."""
        sizes = self.storage.sizes(record.folder)
        wrong = [file.path for file in record.files if sizes.get(file.path) != file.size]
        if hashing and not wrong:
            with ThreadPoolExecutor() as pool:
                sums = pool.map(lambda file: self.storage.sha256(f"{record.folder}/{file.path}"), record.files)
                wrong = [file.path for file, found in zip(record.files, sums, strict=True) if found != file.sha256]
        return wrong

    def mark_damaged(self, record: Record, files: list[str]) -> None:
        """Report damage, and see to it that nobody uses the artifact again."""
        logger.warning(
            "%s is damaged (%s); it will not be used and is built again by the next run that needs it",
            record.reference,
            ", ".join(files),
        )
        self.storage.create(_damage_mark(record), json.dumps(files).encode())

    def is_marked_damaged(self, record: Record) -> bool:
        """Whether somebody has found the artifact damaged."""
        return self.storage.read(_damage_mark(record)) is not None

    def path(self, record: Record, name: str) -> Path:
        """A local path of one file or folder of an artifact that `find` has returned, fetched where it lies on S3.

        Raises `RunError` where what was fetched is damaged.
        """
        files = [file for file in record.files if file.path == name or file.path.startswith(f"{name}/")]
        assert files, f"{record.reference} holds no {name}"
        if isinstance(self.storage, LocalStorage):
            return self.storage.root / record.folder / name
        assert self._cache
        folder = self._cache.entry(record.folder, sum(file.size for file in files))
        with ThreadPoolExecutor(4) as pool:
            intact = list(pool.map(lambda file: self._fetch(record, file, folder), files))
        if damaged := [file.path for file, good in zip(files, intact, strict=True) if not good]:
            self.mark_damaged(record, damaged)
            raise RunError(f"{record.reference} is damaged ({', '.join(damaged)}); run again to build it anew")
        return folder / name

    def _fetch(self, record: Record, file: StoredFile, folder: Path) -> bool:
        """Copy one file into the cache; a file there is whole, for it gets its name after it is checked."""
        target = folder / file.path
        if target.is_file():
            return True
        part = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.storage.fetch(f"{record.folder}/{file.path}", part)
            if file_sha256(part) != file.sha256:
                return False
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return True

    @contextmanager
    def draft(self, reference: Reference) -> Iterator[Draft]:
        """An empty local folder that a step fills; gone at the end unless `commit` has taken it.

        The caller holds the artifact's lease: what dead attempts have left behind is removed.
        """
        self._remove_leftovers(reference)
        attempt = uuid.uuid4().hex[:8]
        if isinstance(self.storage, LocalStorage):
            path = self.storage.root / str(reference) / attempt
        else:
            assert self._cache
            path = self._cache.entry(f"{reference}/{attempt}", num_bytes=0)  # how many come, nobody knows yet
        path.mkdir(parents=True, exist_ok=True)
        try:
            yield Draft(path, attempt)
        except BaseException:  # an interrupt leaves no half draft behind, either
            shutil.rmtree(path, ignore_errors=True)
            raise

    def _remove_leftovers(self, reference: Reference) -> None:
        record = self.record(reference)
        kept = {record.attempt} if record else set()
        names = self.storage.sizes(str(reference))
        kept |= {name.split("-")[1].split(".")[0] for name in names if name.startswith("damaged-")}
        attempts = {name.split("/")[0] for name in names if "/" in name} - {"checkpoints"}
        for attempt in attempts - kept:
            self.storage.remove(f"{reference}/{attempt}")

    def commit(self, draft: Draft, record: Record) -> Record:
        """Make a filled draft the artifact that its record names, record last; returns the record that counts.

        Where another run has committed the same artifact meanwhile, that one stays.
        """
        files = [describe_file(path, draft.path) for path in sorted(draft.path.rglob("*")) if path.is_file()]
        complete = record.model_copy(update={"files": files, "attempt": draft.attempt})
        self.storage.put_folder(draft.path, complete.folder)
        name = f"{complete.reference}/{RECORD}"
        earlier = self.record(complete.reference)
        if earlier and self.is_marked_damaged(earlier):
            self.storage.remove(name)
        if self.storage.create(name, complete.model_dump_json(indent=2).encode()):
            return complete
        self.storage.remove(complete.folder)
        winner = self.record(complete.reference)
        assert winner, "somebody else's record was there a moment ago"
        return winner


def _damage_mark(record: Record) -> str:
    return f"{record.reference}/damaged-{record.attempt}.json"


def open_storage(settings: Settings) -> Storage:
    """The storage at `settings.store`."""
    if settings.store.startswith("s3://"):
        return S3Storage(settings.store, settings)
    return LocalStorage(Path(settings.store))


def open_store(settings: Settings, check: bool = True) -> Store:
    """The store that the settings name.

    Raises `UserError` where it cannot be reached, unless it was seen to be there before (`check` is false).
    """
    storage = open_storage(settings)
    if check:
        storage.check()
    cache = None
    if not isinstance(storage, LocalStorage):
        cache = Cache(settings.cache.expanduser(), storage.address, int(settings.cache_gb * 1e9))
    return Store(storage, cache)
