"""Looking up artifacts, checking their integrity, and resolving their local paths."""

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cotpipe.errors import RunError, TransientError
from cotpipe.store.cache import Cache
from cotpipe.store.checks import FileChecks
from cotpipe.store.records import (
    RECORD,
    REFRESHED,
    SET_ASIDE,
    Record,
    Reference,
    StoredFile,
    read_record,
    reference_of_folder,
)
from cotpipe.store.storage import SMALL_BYTES, FileInfo, Storage

logger = logging.getLogger(__name__)

READS_AT_ONCE = 32


class Artifacts:
    """The artifacts at one address: look up and use. `Store` also builds them."""

    def __init__(
        self, storage: Storage, cache: Path | None = None, cache_bytes: float = math.inf
    ) -> None:
        """Open a store.

        Args:
            storage: Backend that holds the artifacts.
            cache: Local folder for copies of S3 files and for the results of file checks. Required
                for S3; without it, a local store keeps the results in memory only.
            cache_bytes: Maximum total size of the copies.
        """
        self.storage = storage
        self._checks = FileChecks(storage, cache)
        self.cache: Cache | None = None  # remote storage only
        if storage.local_path("") is None:
            assert cache, "remote storage needs a local cache"
            self.cache = Cache(cache, storage, cache_bytes)

    def latest(self, reference: Reference) -> Reference:
        """The artifact itself, or the one that replaced it after a `--refresh`."""
        data = self.storage.read(f"{reference}/{REFRESHED}")
        return (
            Reference(kind=reference.kind, fingerprint=json.loads(data)["fingerprint"])
            if data
            else reference
        )

    def record(self, reference: Reference) -> Record | None:
        """The record of an artifact; its files are not checked.

        Raises `UserError` for a record of a newer cotpipe, `RunError` for an unreadable one.
        """
        data = self.storage.read(f"{reference}/{RECORD}")
        return read_record(data, str(reference)) if data is not None else None

    def require(self, reference: Reference) -> Record:
        """Like `record`, for an artifact that was there when the run began.

        Raises `TransientError` if it is gone: another run may be making it again.
        """
        record = self.record(reference)
        if record is None:
            raise TransientError(
                f"{reference} is no longer in the store {self.storage.address}: it was collected or "
                "removed while this run needed it; run again to rebuild it"
            )
        return record

    def records(self, kind: str = "", damaged: bool = True) -> list[Record]:
        """The records of all committed artifacts (of one kind), with or without damaged ones.

        Files that are not of this store, and records that cannot be read, are skipped with a
        warning. Raises `UserError` for a record of a newer cotpipe.
        """
        files = {Path(kind, name).as_posix(): one for name, one in self.storage.files(kind).items()}
        listed = {one: files[f"{one}/{RECORD}"] for one in references_in(files)}
        chosen = [
            record
            for record in self.listed_records(listed).values()
            if damaged or _damage_mark(record) not in files
        ]
        return sorted(chosen, key=lambda record: (record.kind, record.made_at, record.fingerprint))

    def listed_records(self, listed: Mapping[Reference, FileInfo]) -> dict[Reference, Record]:
        """The records of artifacts whose record's file a listing has shown, if it is still there.

        Each is fetched once per machine. Warns of an unreadable record instead of raising `RunError`.
        """
        names = {f"{reference}/{RECORD}": info for reference, info in listed.items()}
        if self.cache:
            contents = self.cache.read_listed(names)
        else:
            with ThreadPoolExecutor(READS_AT_ONCE) as pool:
                contents = list(pool.map(self.storage.read, names))
        found = {}
        for reference, data in zip(listed, contents, strict=True):
            try:
                if data is not None:
                    found[reference] = read_record(data, str(reference))
            except RunError as error:
                logger.warning("skipped: %s", error)
        return found

    def find(self, reference: Reference) -> Record | None:
        """The record of an artifact not marked as damaged whose files exist with the right sizes.

        Read-only: does not read file contents and marks nothing. Raises as `record` does.
        """
        record = self.record(reference)
        if record is None or self.is_marked_damaged(record) or self._checks.wrong_sizes(record):
            return None
        return record

    def check(self, reference: Reference) -> Record | None:
        """Like `find`, for an artifact about to be used: damage is logged and marked in the store.

        On a local disk, every file is hashed when a machine first uses the artifact; after that,
        only files whose size, modification time or inode changed. The first use costs about 0.8 s
        of one core per GB, later ones a `stat` per file (see benchmarks/check.py). On S3, files are
        hashed when `path` fetches them. An artifact that `gc` has set aside is taken back.
        """
        record = self.record(reference)
        if record is None:
            return None
        names = self.storage.sizes(str(reference))
        if Path(_damage_mark(record)).name in names:
            return None
        if damaged := self._checks.changed_files(record):
            self.mark_damaged(record, damaged)
            return None
        if SET_ASIDE in names:
            self.storage.remove(f"{reference}/{SET_ASIDE}")
            record = self.record(reference)  # `gc` may have removed it before it could see this
        return record

    def damaged_files(self, record: Record, listed: Mapping[str, int] | None = None) -> list[str]:
        """The files that do not match the record; hashes every file, ignoring earlier checks.

        Args:
            record: The artifact's record.
            listed: Sizes in bytes of all files of the store, by path, where they are known.

        Raises as `FileChecks.damaged_files` does.
        """
        return self._checks.damaged_files(record, listed)

    def mark_damaged(self, record: Record, files: list[str]) -> None:
        """Log the damage and mark the artifact so that no run uses it again."""
        logger.warning(
            "%s is damaged (%s); it will be rebuilt by the next run that needs it",
            record.reference,
            ", ".join(files),
        )
        self.storage.create(_damage_mark(record), json.dumps(files).encode())

    def is_marked_damaged(self, record: Record) -> bool:
        """Whether the artifact is marked as damaged."""
        return self.storage.read(_damage_mark(record)) is not None

    def path(self, record: Record, name: str) -> Path:
        """The local path of a file or folder of a committed artifact, fetched from S3 if needed.

        Raises `RunError` if a fetched file is damaged.
        """
        files = [
            file for file in record.files if file.path == name or file.path.startswith(f"{name}/")
        ]
        assert files, f"{record.reference} holds no {name}"
        if path := self.storage.local_path(f"{record.folder}/{name}"):
            return path
        assert self.cache
        folder, damaged = self.cache.fetch(record, files)
        if damaged:
            self.mark_damaged(record, damaged)
            raise RunError(
                f"{record.reference} is damaged ({', '.join(damaged)}); run again to rebuild it"
            )
        return folder / name

    def release(self, record: Record) -> None:
        """Let the cache evict an artifact whose paths are not used any more."""
        if self.cache:
            self.cache.release(record.folder)

    def readable_paths(self, files: Sequence[tuple[Record, StoredFile]]) -> list[str]:
        """Where DuckDB can read files of many artifacts; damaged ones are marked and left out.

        Small files of an S3 store are fetched side by side, as DuckDB opens one after the other.
        """
        where: dict[str, str] = {}
        small = [one for one in files if one[1].size <= SMALL_BYTES] if self.cache else []
        if self.cache and small:
            folder, intact = self.cache.fetch_small(small)
            for (record, file), good in zip(small, intact, strict=True):
                name = f"{record.folder}/{file.path}"
                where[name] = str(folder / name) if good else ""
                if not good:
                    self.mark_damaged(record, [file.path])
        names = [f"{record.folder}/{file.path}" for record, file in files]
        found = [where.get(name, self.storage.location(name)) for name in names]
        return [path for path in found if path]


def references_in(names: Iterable[str]) -> list[Reference]:
    """The artifacts whose records are among these files; warns of records in other places."""
    found = []
    for name in sorted(names):
        parts = name.split("/")
        if parts[-1] != RECORD:
            continue
        if len(parts) == 3 and (reference := reference_of_folder(f"{parts[0]}/{parts[1]}")):
            found.append(reference)
        elif len(parts) < 4 or not reference_of_folder(f"{parts[0]}/{parts[1]}"):
            logger.warning("skipped: %s is not a record of this store", name)
    return found


def _damage_mark(record: Record) -> str:
    return f"{record.reference}/damaged-{record.attempt}.json"
