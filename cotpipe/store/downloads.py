"""What a download says about the store's own copy: one bad download condemns nothing."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cotpipe.errors import TransientError
from cotpipe.store.records import StoredFile
from cotpipe.store.storage import SMALL_BYTES, Storage, file_sha256

_DOWNLOADS = 3


class _Content(NamedTuple):
    """What one download brought."""

    size: int  # bytes
    sha256: str


def download(storage: Storage, name: str, file: StoredFile, target: Path) -> bool:
    """Download a file to a local path until it is right; False if the store's copy is damaged.

    Args:
        storage: Where the file is.
        name: Its path in the store.
        file: Its size and checksum, as recorded.
        target: The local path, whose folder exists.

    Raises `TransientError` if the connection, not the store's copy, damages it.
    """

    def once() -> _Content:
        data = storage.read(name) if file.size <= SMALL_BYTES else None
        if data is not None:  # in one call, and without reading it again
            target.write_bytes(data)
            return _Content(len(data), hashlib.sha256(data).hexdigest())
        storage.fetch(name, target)
        return _Content(target.stat().st_size, file_sha256(target))

    return _is_intact(storage, name, file, once)


def is_intact(storage: Storage, name: str, file: StoredFile) -> bool:
    """Like `download`, for a file that is only hashed."""

    def once() -> _Content:
        data = storage.read(name) if file.size <= SMALL_BYTES else None
        if data is not None:
            return _Content(len(data), hashlib.sha256(data).hexdigest())
        return _Content(file.size, storage.sha256(name))

    return _is_intact(storage, name, file, once)


def _is_intact(storage: Storage, name: str, file: StoredFile, once: Callable[[], _Content]) -> bool:
    """Whether a download is right before two whole ones agree that the file is damaged."""
    wrong: set[_Content] = set()
    for _ in range(_DOWNLOADS):
        found = once()
        if found.sha256 == file.sha256:
            return True
        if found in wrong and found.size == file.size:
            return False
        wrong.add(found)
    raise TransientError(
        f"{name}: {_DOWNLOADS} downloads from {storage.address} were incomplete or differed; check "
        "the network, then run again"
    )
