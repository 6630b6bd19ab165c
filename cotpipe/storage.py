"""Files under one address: the few operations that the store is built from, and how a local disk does them."""

import hashlib
import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from typing_extensions import override

from cotpipe.errors import RunError, UserError


class Storage(ABC):
    """Names are relative paths such as `problems/0123/record.json`; a folder is whatever begins with its name."""

    address: str

    @abstractmethod
    def check(self) -> None:
        """Raise one clear `UserError` where the address cannot be reached or used."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """The content of a file; None where there is none."""

    @abstractmethod
    def create(self, name: str, data: bytes) -> bool:
        """Write a new file at once and whole; False, and nothing changes, where the name is taken."""

    @abstractmethod
    def replace(self, name: str, data: bytes) -> None:
        """Write a file at once and whole, whether or not the name is taken."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file or a folder; fine where there is none."""

    @abstractmethod
    def sizes(self, folder: str) -> dict[str, int]:
        """Every file under a folder, by its name relative to the folder, with its size in bytes."""

    @abstractmethod
    def put_folder(self, source: Path, name: str) -> None:
        """Make the local folder `source` (it may be moved) the folder `name`; a record is to name it afterwards."""

    @abstractmethod
    def fetch(self, name: str, target: Path) -> None:
        """Copy one file to the local path `target`."""

    @abstractmethod
    def sha256(self, name: str) -> str:
        """The SHA-256 of a file's content, in hex."""

    @abstractmethod
    def location(self, name: str) -> str:
        """What DuckDB and people call a file: a path, or `s3://bucket/...`."""


class LocalStorage(Storage):
    """A folder on a disk of this machine, or on one that is mounted here."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.address = str(root)

    @override
    def check(self) -> None:
        if self.root.exists() and not self.root.is_dir():
            raise UserError(f"the store {self.root} is a file, not a folder; set COTPIPE_STORE to another place")

    @override
    def read(self, name: str) -> bytes | None:
        with self._told():
            try:
                return (self.root / name).read_bytes()
            except FileNotFoundError:
                return None

    @override
    def create(self, name: str, data: bytes) -> bool:
        with self._told(), self._beside(name, data) as written:
            try:
                os.link(written, self.root / name)  # fails where the name is taken, unlike a rename
            except FileExistsError:
                return False
        return True

    @override
    def replace(self, name: str, data: bytes) -> None:
        with self._told(), self._beside(name, data) as written:
            written.replace(self.root / name)

    @contextmanager
    def _beside(self, name: str, data: bytes) -> Iterator[Path]:
        """A finished temporary file in the folder of `name`."""
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
        with self._told():
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
            with self._told():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(source, target)

    @override
    def fetch(self, name: str, target: Path) -> None:
        with self._told():
            shutil.copyfile(self.root / name, target)

    @override
    def sha256(self, name: str) -> str:
        return file_sha256(self.root / name)

    @override
    def location(self, name: str) -> str:
        return str(self.root / name)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say in one line what a disk reports that is full, read-only or gone."""
        try:
            yield
        except OSError as error:
            raise RunError(
                f"the store {self.root} cannot be used: {error}; make room or set COTPIPE_STORE to another place, "
                "then run again: finished steps are kept"
            ) from error


def file_sizes(root: Path) -> dict[str, int]:
    """Every file under a folder, by its name relative to it, in bytes; what others remove meanwhile is passed over."""
    found = {}
    for parent, _, names in os.walk(root):
        for name in names:
            path = Path(parent, name)
            with suppress(FileNotFoundError):
                found[path.relative_to(root).as_posix()] = path.stat().st_size
    return found


def input_sha256(path: Path) -> str:
    """The SHA-256 of a file of the user's, computed once per process for as long as its size and time stay."""
    state = path.stat()
    return _input_sha256(path, state.st_size, state.st_mtime_ns)


@lru_cache
def _input_sha256(path: Path, size: int, modified: int) -> str:
    return file_sha256(path)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a local file's content, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
