"""Integrity checks of artifact files; on a local disk, each file is hashed once per change."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from cotpipe.errors import RunError
from cotpipe.store.downloads import is_intact
from cotpipe.store.records import Record, StoredFile
from cotpipe.store.storage import LocalStorage, Storage

logger = logging.getLogger(__name__)

_State = tuple[int, int, int]
"""Changes whenever a file's content does: size in bytes, modification time in ns, inode."""
_STATES = TypeAdapter(dict[str, _State])


class FileChecks:
    """Compares artifact files with their records, and remembers which files were intact.

    The results are stored in one file per artifact, `<cache>/checked/<hash of the store's
    address>/<artifact>.json`, which holds the state in which each file was hashed. A file whose
    state has changed is hashed again. Processes can share the folder: files in it are replaced
    atomically, and every writer's result is valid. Without a usable folder, the results are kept
    in memory only.
    """

    def __init__(self, storage: Storage, cache: Path | None) -> None:
        self._storage = storage
        self._memory: dict[str, dict[str, _State]] = {}
        self._folder: LocalStorage | None = None
        if cache and (root := storage.local_path("")):
            address = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
            self._folder = LocalStorage(cache / "checked" / address)

    def wrong_sizes(self, record: Record, listed: Mapping[str, int] | None = None) -> list[str]:
        """The files that are missing or have the wrong size; reads no contents.

        Args:
            record: The artifact's record.
            listed: Sizes in bytes of the store's files, by path, where they are known.
        """
        folder = record.folder
        if listed is None:
            own = self._storage.sizes(folder)
            listed = {f"{folder}/{name}": size for name, size in own.items()}
        return [
            file.path for file in record.files if listed.get(f"{folder}/{file.path}") != file.size
        ]

    def changed_files(self, record: Record) -> list[str]:
        """The files that do not match the record; hashes only files that are new or changed.

        On S3, only sizes are compared, since files are hashed when they are fetched.
        """
        states, known = self._states(record), self._recall(record)
        new = [file for file in record.files if states.get(file.path) != known.get(file.path)]
        return self.wrong_sizes(record) or self._hash(record, new, states)

    def damaged_files(self, record: Record, listed: Mapping[str, int] | None = None) -> list[str]:
        """The files that do not match the record; hashes every file, local or remote.

        Sizes are taken from `listed` as in `wrong_sizes`. Raises `TransientError` if the connection,
        not the store's copy, damages a file, `RunError` if a listed file has been removed since.
        """
        wrong = self.wrong_sizes(record, listed)
        return wrong or self._hash(record, record.files, self._states(record))

    def _states(self, record: Record) -> dict[str, _State]:
        """The current states of the files that exist; empty for remote storage."""
        states = {}
        for file in record.files:
            path = self._storage.local_path(f"{record.folder}/{file.path}")
            if path and path.is_file():
                stat = path.stat()
                states[file.path] = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        return states

    def _hash(
        self, record: Record, files: Sequence[StoredFile], states: Mapping[str, _State]
    ) -> list[str]:
        """Hash files; `states` were read before, so a concurrent change is noticed next time."""
        if not files:
            return []
        if len(files) == 1:  # most often, and thousands of times: without a thread of its own
            intact = [self._is_intact(record, files[0])]
        else:
            with ThreadPoolExecutor() as pool:
                intact = list(pool.map(lambda file: self._is_intact(record, file), files))
        wrong = [file.path for file, good in zip(files, intact, strict=True) if not good]
        if states and not wrong:
            self._remember(record, dict(states))
        return wrong

    def _is_intact(self, record: Record, file: StoredFile) -> bool:
        name = f"{record.folder}/{file.path}"
        if self._storage.local_path(name) is None:
            return is_intact(self._storage, name, file)
        return self._storage.sha256(name) == file.sha256

    def _recall(self, record: Record) -> dict[str, _State]:
        name = _name_of(record)
        if name in self._memory or self._folder is None:
            return self._memory.get(name, {})
        try:
            data = self._folder.read(name)
            return _STATES.validate_json(data) if data else {}
        except RunError as error:
            self._disable_folder(error)
        except ValidationError:
            logger.info("%s is corrupt and will be rewritten", self._folder.location(name))
        return {}

    def _remember(self, record: Record, states: dict[str, _State]) -> None:
        name = _name_of(record)
        self._memory[name] = states
        if self._folder:
            try:
                self._folder.replace(name, _STATES.dump_json(states))
            except RunError as error:
                self._disable_folder(error)

    def _disable_folder(self, error: RunError) -> None:
        logger.warning(
            "file checks cannot be cached, so the next run will hash all files again: %s; "
            "set COTPIPE_CACHE to a writable folder",
            error.__cause__,
        )
        self._folder = None


def _name_of(record: Record) -> str:
    return f"{record.kind}-{record.fingerprint}-{record.attempt}.json"
