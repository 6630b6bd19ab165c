"""Looking up artifacts, checking their integrity, and resolving their local paths."""

import json
import logging
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cotpipe.errors import RunError
from cotpipe.store.cache import Cache
from cotpipe.store.checks import FileChecks
from cotpipe.store.records import RECORD, REFRESHED, Record, Reference, read_record
from cotpipe.store.storage import Storage

logger = logging.getLogger(__name__)

_READS_AT_ONCE = 16


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

    def records(self, kind: str = "", damaged: bool = True) -> list[Record]:
        """The records of all committed artifacts (of one kind), with or without damaged ones."""
        names = {Path(kind, name).as_posix() for name in self.storage.sizes(kind)}
        references = [name.split("/")[:2] for name in names if name.split("/")[-1] == RECORD]
        with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
            found = pool.map(
                lambda parts: self.record(Reference(kind=parts[0], fingerprint=parts[1])),
                references,
            )
            chosen = [
                record
                for record in found
                if record and (damaged or _damage_mark(record) not in names)
            ]
        return sorted(chosen, key=lambda record: (record.kind, record.made_at, record.fingerprint))

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
        hashed when `path` fetches them.
        """
        record = self.record(reference)
        if record is None or self.is_marked_damaged(record):
            return None
        if damaged := self._checks.changed_files(record):
            self.mark_damaged(record, damaged)
            return None
        return record

    def damaged_files(self, record: Record) -> list[str]:
        """The files that do not match the record; hashes every file, ignoring earlier checks."""
        return self._checks.damaged_files(record)

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


def _damage_mark(record: Record) -> str:
    return f"{record.reference}/damaged-{record.attempt}.json"
