"""Training states: what a killed stage resumes from, kept in the store so any machine can resume.

Not to be confused with checkpoints: a checkpoint is a trained student, the artifact of a finished
stage.
"""

import logging
import shutil
import uuid
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cotpipe.store.downloads import download
from cotpipe.store.records import Reference, StoredFile, describe_file
from cotpipe.store.storage import Storage

logger = logging.getLogger(__name__)

TRAINING_STATE = "training-state"
"""Folder of the training states within an artifact's folder."""


class _TrainingState(BaseModel):
    """The content of `training-state/STEP.json`, which is written after the files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    folder: str
    files: list[StoredFile]


class TrainingStates:
    """The training states of an artifact being built; only the newest is kept, until the commit."""

    def __init__(self, storage: Storage, reference: Reference) -> None:
        self._storage = storage
        self._root = f"{reference}/{TRAINING_STATE}"

    def save(self, step: int, source: Path) -> None:
        """Store the folder `source` (moved) as the training state after `step` optimizer steps."""
        earlier = set(self._storage.sizes(self._root))
        folder = f"{step}-{uuid.uuid4().hex[:8]}"
        files = [
            describe_file(path, source) for path in sorted(source.rglob("*")) if path.is_file()
        ]
        self._storage.put_folder(source, f"{self._root}/{folder}")
        if source.exists():  # S3 copies; a local store moves
            shutil.rmtree(source)
        entry = _TrainingState(step=step, folder=folder, files=files)
        self._storage.replace(f"{self._root}/{step:08d}.json", entry.model_dump_json().encode())
        for name in earlier - {f"{step:08d}.json"}:
            self._storage.remove(f"{self._root}/{name}")

    def fetch_latest(self, target: Path) -> bool:
        """Copy the newest intact training state to the folder `target`; False if there is none.

        Raises `TransientError` if the connection, not the store's copy, damages a file.
        """
        names = sorted(
            name
            for name in self._storage.sizes(self._root)
            if name.endswith(".json") and "/" not in name
        )
        for name in reversed(names):
            data = self._storage.read(f"{self._root}/{name}")
            assert data, "only the lease holder removes training states"
            entry = _TrainingState.model_validate_json(data)
            if self._fetch(entry, target):
                return True
            logger.warning("ignoring the damaged training state of step %d", entry.step)
        return False

    def _fetch(self, entry: _TrainingState, target: Path) -> bool:
        stored = self._storage.sizes(f"{self._root}/{entry.folder}")
        if any(stored.get(file.path) != file.size for file in entry.files):
            return False
        for file in entry.files:
            path = target / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            name = f"{self._root}/{entry.folder}/{file.path}"
            if not download(self._storage, name, file, path):
                return False
        return True

    def clear(self) -> None:
        """Remove all training states."""
        self._storage.remove(self._root)
