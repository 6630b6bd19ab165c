"""A size-bounded local cache of S3 files, by artifact and attempt."""

import fcntl
import hashlib
import logging
import os
import re
import shutil
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO

from cotpipe.store.downloads import download
from cotpipe.store.records import Record, StoredFile
from cotpipe.store.storage import FileInfo, Storage, local_files

logger = logging.getLogger(__name__)

_FILES_AT_ONCE = 4
_SMALL_FILES_AT_ONCE = 32
_MD5 = re.compile(r"[0-9a-f]{32}")


class Cache:
    """A folder of entries with least-recently-used eviction.

    Every process that requests an entry holds a shared lock on it, an open file, until it releases
    the entry or ends; only unlocked entries are evicted. The entries in use may therefore exceed the
    bound. What is used in thousands, such as shards, has to be released one after the other.
    """

    def __init__(self, root: Path, storage: Storage, max_bytes: float) -> None:
        self._storage = storage
        self._root = root / hashlib.sha256(storage.address.encode()).hexdigest()[:16]
        self._max_bytes = max_bytes
        self._locks: dict[Path, IO[bytes]] = {}
        self._unmeasured = 0.0  # bytes that may still come before all entries are measured again

    def entry(self, name: str, num_bytes: int) -> Path:
        """The folder of entry `kind/fingerprint/attempt`, locked, with room for `num_bytes`."""
        folder = self._folder(name)
        if folder not in self._locks:
            self._root.mkdir(parents=True, exist_ok=True)
            lock = _lock_of(folder).open("wb")
            fcntl.flock(lock, fcntl.LOCK_SH)
            self._locks[folder] = lock
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        self._make_room(folder, num_bytes)
        return folder

    def release(self, name: str, num_written: int = 0) -> None:
        """Let an entry be evicted that this process does not use any more.

        Args:
            name: The entry.
            num_written: Bytes that have come into it besides those that `entry` was told of.
        """
        self._unmeasured -= num_written
        lock = self._locks.pop(self._folder(name), None)
        if lock:
            lock.close()

    def _folder(self, name: str) -> Path:
        return self._root / name.replace("/", "-")

    def fetch(self, record: Record, files: Sequence[StoredFile]) -> tuple[Path, list[str]]:
        """Fetch the files that are not cached yet; returns their folder and the damaged files.

        Raises `TransientError` if the connection, not the store's copy, damages a file.
        """
        folder = self.entry(record.folder, sum(file.size for file in files))
        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            intact = list(pool.map(lambda file: self._fetch(record, file, folder), files))
        return folder, [file.path for file, good in zip(files, intact, strict=True) if not good]

    def fetch_small(self, files: Sequence[tuple[Record, StoredFile]]) -> tuple[Path, list[bool]]:
        """Fetch small files of many artifacts side by side, into one entry of the cache.

        Returns the entry's folder, in which a file lies as in the store, and which files are intact.
        Raises as `fetch` does.
        """
        folder = self.entry("small-files", sum(file.size for _, file in files))

        def fetch(one: tuple[Record, StoredFile]) -> bool:
            return self._fetch(one[0], one[1], folder / one[0].folder)

        with ThreadPoolExecutor(_SMALL_FILES_AT_ONCE) as pool:
            return folder, list(pool.map(fetch, files))

    def read_listed(self, files: Mapping[str, FileInfo]) -> list[bytes | None]:
        """The contents of small files as a listing shows them; None where one has gone since.

        Each content is read once per machine: its copy is named by the ETag, and used as long as
        this is its MD5. Where a server's ETags are something else, nothing is copied.
        """
        folder: Path | None = None
        try:
            folder = self.entry("listed", sum(info.size for info in files.values()))
        except OSError as error:
            logger.warning(
                "records cannot be cached and are fetched each time: %s; set COTPIPE_CACHE to a "
                "writable folder",
                error,
            )

        def read(name: str) -> bytes | None:
            etag = files[name].etag
            copy = folder / etag if folder and _MD5.fullmatch(etag) else None
            with suppress(OSError):  # not there, or another user's
                if copy and _md5(data := copy.read_bytes()) == etag:
                    return data
            found = self._storage.read(name)
            if copy and found is not None and _md5(found) == etag:  # not replaced since
                part = copy.with_name(f"{uuid.uuid4().hex}.part")
                with suppress(OSError):  # the disk is full, or somebody empties the cache
                    part.write_bytes(found)
                    part.replace(copy)
            return found

        with ThreadPoolExecutor(_SMALL_FILES_AT_ONCE) as pool:
            contents = list(pool.map(read, files))
        self.release("listed")
        return contents

    def _fetch(self, record: Record, file: StoredFile, folder: Path) -> bool:
        """Fetch one file unless it is cached; False if the store's own copy is damaged.

        Cached files are renamed only after their check; one that was cut off later is fetched
        again.
        """
        target = folder / file.path
        if target.is_file() and target.stat().st_size == file.size:
            return True
        part = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            if not download(self._storage, f"{record.folder}/{file.path}", file, part):
                return False
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return True

    def _make_room(self, folder: Path, num_bytes: int) -> None:
        """Evict entries if there is no room for one of `num_bytes` in all.

        Measuring all entries takes long, so it is done again only after a tenth of what was free then
        may have come; where there is too little room, a tenth of the bound is freed, too.
        """
        self._unmeasured -= num_bytes
        if self._unmeasured > 0:
            return
        entries = {path: _num_bytes(path) for path in self._oldest_first()}
        total = sum(entries.values()) + max(num_bytes - entries.get(folder, 0), 0)
        bound = self._max_bytes if total <= self._max_bytes else 0.9 * self._max_bytes
        for path, size in entries.items():
            if total <= bound:
                break
            if path not in self._locks and _remove_if_unused(path):
                logger.info("cache: removed %s (%.2f GB)", path.name, size / 1e9)
                total -= size
        self._unmeasured = (self._max_bytes - total) / 10

    def _oldest_first(self) -> list[Path]:
        used = {}
        for path in self._root.iterdir():
            with suppress(FileNotFoundError):  # another process may evict entries
                if path.is_dir():
                    used[path] = path.stat().st_mtime
        return sorted(used, key=used.__getitem__)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _num_bytes(folder: Path) -> int:
    return sum(info.size for info in local_files(folder).values())


def _remove_if_unused(path: Path) -> bool:
    with _lock_of(path).open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if path.exists():
            shutil.rmtree(path)
        return True


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")
