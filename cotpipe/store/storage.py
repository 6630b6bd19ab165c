"""Storage backends: the file operations that the store needs, and the local implementation."""

import errno
import hashlib
import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from typing_extensions import override

from cotpipe.errors import RunError, UserError

Written = TypeVar("Written")

SMALL_BYTES = 4 * 2**20
"""Files up to this size are read in one call."""

CLOCK = ".clock"
"""Folder of the files that are written to read the storage's clock."""


class FileInfo(NamedTuple):
    """What a listing tells about a file."""

    size: int  # bytes
    modified: float  # seconds by the clock of the storage; compare with `Storage.now` alone
    etag: str = ""  # S3's name of the content: its MD5, on most servers


class Storage(ABC):
    """Files under one address, named by relative paths such as `problems/0123/record.json`.

    A folder is the set of files whose names start with the folder's path.
    """

    address: str
    filesystem: Any = None  # fsspec filesystem through which DuckDB reads; None for local paths

    @abstractmethod
    def check(self) -> None:
        """Raise `UserError` if the address cannot be reached or used."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """The content of a file; None if it does not exist."""

    @abstractmethod
    def create(self, name: str, data: bytes) -> bool:
        """Create a file atomically and durably; returns False and changes nothing if it exists."""

    def creates_once(self) -> bool:
        """Whether of two creators at the same moment one is refused; False for some S3 servers.

        Writes, so only for `cotpipe doctor`. Raises `RunError` if the server can be used in no way.
        """
        return True

    @abstractmethod
    def replace(self, name: str, data: bytes) -> None:
        """Create or overwrite a file atomically and durably."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file or a folder; does nothing if it does not exist."""

    @abstractmethod
    def remove_files(self, names: Sequence[str]) -> None:
        """Remove files by their exact names, and local folders that this leaves empty."""

    @abstractmethod
    def files(self, folder: str) -> dict[str, FileInfo]:
        """All files under a folder, keyed by path relative to it."""

    def sizes(self, folder: str) -> dict[str, int]:
        """Sizes in bytes of all files under a folder, keyed by path relative to it."""
        return {name: info.size for name, info in self.files(folder).items()}

    def now(self) -> float:
        """The time (s) by the clock that sets `FileInfo.modified`, whatever this machine's says."""
        name = uuid.uuid4().hex
        self.replace(f"{CLOCK}/{name}", b"")
        try:
            return self.files(CLOCK)[name].modified
        finally:
            self.remove(f"{CLOCK}/{name}")

    @abstractmethod
    def put_folder(self, source: Path, name: str) -> None:
        """Store the local folder `source` durably as `name`; may move it.

        Not atomic: readers see the folder through a record that is written afterwards.
        """

    @abstractmethod
    def fetch(self, name: str, target: Path) -> None:
        """Copy a file to the local path `target`."""

    @abstractmethod
    def sha256(self, name: str) -> str:
        """The SHA-256 of a file's content, as hex."""

    @abstractmethod
    def local_path(self, name: str) -> Path | None:
        """The local path of a file or folder; None if the storage is remote."""

    @abstractmethod
    def location(self, name: str) -> str:
        """The path or URL (`s3://bucket/...`) of a file, for DuckDB and for messages."""


class LocalStorage(Storage):
    """A folder on a local or mounted disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.address = str(root)

    @override
    def check(self) -> None:
        if self.root.exists() and not self.root.is_dir():
            raise UserError(
                f"the store {self.root} is a file, not a folder; set COTPIPE_STORE to a folder"
            )

    @override
    def read(self, name: str) -> bytes | None:
        with self._reporting_errors():
            try:
                return (self.root / name).read_bytes()
            except FileNotFoundError:
                return None

    @override
    def create(self, name: str, data: bytes) -> bool:
        def link(target: Path) -> bool:
            with _written_beside(target, data) as written:
                try:
                    os.link(written, target)  # unlike a rename, fails if the target exists
                except FileExistsError:
                    return False
            return True

        return self._write(name, link)

    @override
    def replace(self, name: str, data: bytes) -> None:
        self._write(name, lambda target: write_atomically(target, data))

    def _write(self, name: str, write: Callable[[Path], Written]) -> Written:
        target = self.root / name
        with self._reporting_errors():
            while True:
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    result = write(target)
                    self._sync_folders(target.parent)
                except FileNotFoundError:
                    if target.parent.exists():
                        raise
                    continue  # `remove_files` found the new folder empty
                return result

    def _sync_folders(self, folder: Path) -> None:
        """Flush a folder's entries and those of its parents, some of which may be new."""
        inner = folder.relative_to(self.root)
        for depth in range(len(inner.parts), -1, -1):
            sync(Path(self.root, *inner.parts[:depth]))

    @override
    def remove(self, name: str) -> None:
        path = self.root / name
        with self._reporting_errors():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    @override
    def remove_files(self, names: Sequence[str]) -> None:
        with self._reporting_errors():
            for name in names:
                (self.root / name).unlink(missing_ok=True)
            folders = {parent for name in names for parent in Path(name).parents[:-1]}
            for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
                self._remove_if_empty(self.root / folder)

    def _remove_if_empty(self, folder: Path) -> None:
        try:
            folder.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                raise

    @override
    def files(self, folder: str) -> dict[str, FileInfo]:
        return local_files(self.root / folder)

    @override
    def put_folder(self, source: Path, name: str) -> None:
        target = self.root / name
        with self._reporting_errors():
            if source != target:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(source, target)
            for parent, _, names in os.walk(target):
                for path in [*(Path(parent, name) for name in names), Path(parent)]:
                    sync(path)
            self._sync_folders(target.parent)

    @override
    def fetch(self, name: str, target: Path) -> None:
        with self._reporting_errors():
            shutil.copyfile(self.root / name, target)

    @override
    def sha256(self, name: str) -> str:
        with self._reporting_errors():
            return file_sha256(self.root / name)

    @override
    def local_path(self, name: str) -> Path:
        return self.root / name

    @override
    def location(self, name: str) -> str:
        return str(self.root / name)

    @contextmanager
    def _reporting_errors(self) -> Iterator[None]:
        """Turn an `OSError` (disk full, read-only, unmounted) into a one-line `RunError`."""
        try:
            yield
        except OSError as error:
            raise RunError(
                f"the store {self.root} cannot be used: {error}; free up space or set COTPIPE_STORE "
                "to another location, then run again: finished steps are kept"
            ) from error


def write_atomically(path: Path, data: bytes) -> None:
    """Create or overwrite a local file: after a power cut it holds the old content or the new.

    Its folder must exist. Raises `OSError`; the file then holds what it did before.
    """
    with _written_beside(path, data) as written:
        written.replace(path)
    sync(path.parent)


@contextmanager
def _written_beside(target: Path, data: bytes) -> Iterator[Path]:
    """A temporary file with the data, on the disk, in the folder of `target`."""
    written = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        written.write_bytes(data)
        sync(written)
        yield written
    finally:
        written.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of entries, to the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def local_files(root: Path) -> dict[str, FileInfo]:
    """All files under a local folder, keyed by path relative to it.

    Files that are removed concurrently are skipped.
    """
    found = {}
    for parent, _, names in os.walk(root):
        for name in names:
            path = Path(parent, name)
            with suppress(FileNotFoundError):
                stat = path.stat()
                found[path.relative_to(root).as_posix()] = FileInfo(stat.st_size, stat.st_mtime)
    return found


def input_sha256(path: Path) -> str:
    """The SHA-256 of an input file, cached per process by size and modification time."""
    state = path.stat()
    return _input_sha256(path, state.st_size, state.st_mtime_ns)


@lru_cache
def _input_sha256(path: Path, size: int, modified: int) -> str:
    return file_sha256(path)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a local file's content, as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
