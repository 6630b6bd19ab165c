"""Storage backends: the file operations that the store needs, and the local implementation."""

import hashlib
import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from typing_extensions import override

from cotpipe.errors import RunError, UserError


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
        """Create a file atomically; returns False and changes nothing if it exists."""

    @abstractmethod
    def replace(self, name: str, data: bytes) -> None:
        """Create or overwrite a file atomically."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file or a folder; does nothing if it does not exist."""

    @abstractmethod
    def sizes(self, folder: str) -> dict[str, int]:
        """Sizes in bytes of all files under a folder, keyed by path relative to it."""

    @abstractmethod
    def put_folder(self, source: Path, name: str) -> None:
        """Store the local folder `source` as `name`; may move it.

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
        with self._reporting_errors(), self._beside(name, data) as written:
            try:
                os.link(written, self.root / name)  # unlike a rename, fails if the target exists
            except FileExistsError:
                return False
        return True

    @override
    def replace(self, name: str, data: bytes) -> None:
        with self._reporting_errors(), self._beside(name, data) as written:
            written.replace(self.root / name)

    @contextmanager
    def _beside(self, name: str, data: bytes) -> Iterator[Path]:
        """Write the data to a temporary file in the folder of `name`."""
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        written = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
        try:
            written.write_bytes(data)
            yield written
        finally:
            written.unlink(missing_ok=True)

    @override
    def remove(self, name: str) -> None:
        path = self.root / name
        with self._reporting_errors():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    @override
    def sizes(self, folder: str) -> dict[str, int]:
        return file_sizes(self.root / folder)

    @override
    def put_folder(self, source: Path, name: str) -> None:
        target = self.root / name
        if source != target:
            with self._reporting_errors():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(source, target)

    @override
    def fetch(self, name: str, target: Path) -> None:
        with self._reporting_errors():
            shutil.copyfile(self.root / name, target)

    @override
    def sha256(self, name: str) -> str:
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


def file_sizes(root: Path) -> dict[str, int]:
    """Sizes in bytes of all files under a folder, keyed by path relative to it.

    Files that are removed concurrently are skipped.
    """
    found = {}
    for parent, _, names in os.walk(root):
        for name in names:
            path = Path(parent, name)
            with suppress(FileNotFoundError):
                found[path.relative_to(root).as_posix()] = path.stat().st_size
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
