"""Local copies of what lies on S3, by artifact and attempt, bounded in size; what a process uses stays."""

import fcntl
import hashlib
import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO

from cotpipe.storage import file_sizes

logger = logging.getLogger(__name__)


class Cache:
    """A folder of entries, the least recently used of which go before there are too many bytes.

    An entry is locked (shared) by every process that has asked for it, until that process ends; only an entry that
    nobody has locked is removed. So what one process uses at a time may be more than the bound.
    """

    def __init__(self, root: Path, address: str, max_bytes: int) -> None:
        self._root = root / hashlib.sha256(address.encode()).hexdigest()[:16]
        self._max_bytes = max_bytes
        self._locks: dict[Path, IO[bytes]] = {}

    def entry(self, name: str, num_bytes: int) -> Path:
        """The folder of the entry `name` (`kind/fingerprint/attempt`), locked, with room for `num_bytes` in it."""
        folder = self._root / name.replace("/", "-")
        if folder not in self._locks:
            self._root.mkdir(parents=True, exist_ok=True)
            lock = _lock_of(folder).open("wb")
            fcntl.flock(lock, fcntl.LOCK_SH)
            self._locks[folder] = lock
        folder.mkdir(exist_ok=True)
        os.utime(folder)
        self._make_room(num_bytes - sum(file_sizes(folder).values()))
        return folder

    def _make_room(self, num_bytes: int) -> None:
        entries = {path: sum(file_sizes(path).values()) for path in self._oldest_first()}
        total = sum(entries.values()) + max(num_bytes, 0)
        for path, size in entries.items():
            if total <= self._max_bytes:
                return
            if path not in self._locks and _remove_if_unused(path):
                logger.info("cache: removed %s (%.2f GB)", path.name, size / 1e9)
                total -= size

    def _oldest_first(self) -> list[Path]:
        used = {}
        for path in self._root.iterdir():
            with suppress(FileNotFoundError):  # another process makes room, too
                if path.is_dir():
                    used[path] = path.stat().st_mtime
        return sorted(used, key=used.__getitem__)


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
