"""Local copies of what lies on S3, by artifact and attempt, bounded in size; what a process uses stays."""

import fcntl
import hashlib
import logging
import os
import shutil
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)


class Cache:
    """A folder of entries, the least recently used of which go when there are too many bytes.

    An entry is locked (shared) by every process that has asked for it, until that process ends; only an entry that
    nobody has locked is removed.
    """

    def __init__(self, root: Path, address: str, max_bytes: int) -> None:
        self._root = root / hashlib.sha256(address.encode()).hexdigest()[:16]
        self._max_bytes = max_bytes
        self._locks: dict[Path, IO[bytes]] = {}

    def entry(self, name: str) -> Path:
        """The folder of the entry `name` (`kind/fingerprint/attempt`), locked and marked as just used."""
        folder = self._root / name.replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        if folder not in self._locks:
            lock = _lock_of(folder).open("wb")
            fcntl.flock(lock, fcntl.LOCK_SH)
            self._locks[folder] = lock
            self._make_room()
        os.utime(folder)
        return folder

    def _make_room(self) -> None:
        entries = sorted(
            (path for path in self._root.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime
        )
        sizes = {path: sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) for path in entries}
        total = sum(sizes.values())
        for path in entries:
            if total <= self._max_bytes:
                return
            if path not in self._locks and _remove_if_unused(path):
                logger.info("cache: removed %s (%.2f GB)", path.name, sizes[path] / 1e9)
                total -= sizes[path]


def _remove_if_unused(path: Path) -> bool:
    with _lock_of(path).open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        shutil.rmtree(path)
        return True


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")
