"""Training checkpoints: where a stage in training stands lies in the store, so that any machine can go on from it."""

import logging
import shutil
import uuid
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cotpipe.records import Reference, StoredFile, describe_file
from cotpipe.storage import Storage, file_sha256

logger = logging.getLogger(__name__)


class _Checkpoint(BaseModel):
    """What `checkpoints/STEP.json` says; it is written after the files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    folder: str
    files: list[StoredFile]


class Checkpoints:
    """The checkpoints of one artifact in the making: the newest alone, gone once the artifact is committed."""

    def __init__(self, storage: Storage, reference: Reference) -> None:
        self._storage = storage
        self._root = f"{reference}/checkpoints"

    def save(self, step: int, source: Path) -> None:
        """Take the folder `source` away as the checkpoint after `step` optimizer steps."""
        earlier = set(self._storage.sizes(self._root))
        folder = f"{step}-{uuid.uuid4().hex[:8]}"
        files = [describe_file(path, source) for path in sorted(source.rglob("*")) if path.is_file()]
        self._storage.put_folder(source, f"{self._root}/{folder}")
        if source.exists():  # copied to S3, where a local store moves it
            shutil.rmtree(source)
        entry = _Checkpoint(step=step, folder=folder, files=files)
        self._storage.replace(f"{self._root}/{step:08d}.json", entry.model_dump_json().encode())
        for name in earlier - {f"{step:08d}.json"}:
            self._storage.remove(f"{self._root}/{name}")

    def fetch_latest(self, target: Path) -> bool:
        """Copy the newest checkpoint to the folder `target`; False where there is none that is whole."""
        names = sorted(name for name in self._storage.sizes(self._root) if name.endswith(".json") and "/" not in name)
        for name in reversed(names):
            data = self._storage.read(f"{self._root}/{name}")
            assert data, "only the holder of the lease removes checkpoints"
            entry = _Checkpoint.model_validate_json(data)
            if self._fetch(entry, target):
                return True
            logger.warning("the training checkpoint of step %d is damaged and not used", entry.step)
        return False

    def _fetch(self, entry: _Checkpoint, target: Path) -> bool:
        stored = self._storage.sizes(f"{self._root}/{entry.folder}")
        if any(stored.get(file.path) != file.size for file in entry.files):
            return False
        for file in entry.files:
            path = target / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            self._storage.fetch(f"{self._root}/{entry.folder}/{file.path}", path)
            if file_sha256(path) != file.sha256:
                return False
        return True

    def clear(self) -> None:
        """Remove them all."""
        self._storage.remove(self._root)
