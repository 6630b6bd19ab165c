"""The store: a step's output lives at `<root>/<kind>/<fingerprint>/`, complete once its `record.json` is there.

A fingerprint is the hash of what decides the content: the step's name and version, the recipe fields that it reads,
and the fingerprints of its inputs. A folder appears under its name in one rename, finished, and is never changed.
"""

import hashlib
import json
import logging
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
RECORD = "record.json"
_DRAFTS = ".drafts"
_DAMAGED = ".damaged"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Reference(_Model):
    """What travels between steps in place of their tables: the name of an artifact."""

    kind: str
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.fingerprint}"


class StoredFile(_Model):
    """One file of an artifact."""

    path: str  # relative to the artifact's folder
    size: int  # bytes
    sha256: str


class Record(_Model):
    """What an artifact says about itself."""

    schema_version: int = SCHEMA_VERSION
    kind: str
    fingerprint: str
    step_version: int
    fields: dict[str, Any]  # the recipe fields that the step reads
    inputs: dict[str, str]  # fingerprints of the inputs, by their kind
    counts: dict[str, int]  # rows kept and dropped, as the step reports them
    files: list[StoredFile]
    versions: dict[str, str]  # packages that made it
    seconds: float


def fingerprint_of(kind: str, step_version: int, fields: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """The identity of a step's output: 32 hex digits over canonical JSON.

    Raises `TypeError` or `ValueError` for what canonical JSON cannot hold (sets, NaN, objects).
    """
    identity = {"kind": kind, "version": step_version, "fields": fields, "inputs": inputs}
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


class Store:
    """Artifacts under one folder.

    >>> import tempfile
    >>> store = Store(Path(tempfile.mkdtemp()))
    >>> store.find(Reference(kind="problems", fingerprint="0" * 32)) is None
    True
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, reference: Reference) -> Path:
        """Where the artifact lies, or would lie."""
        return self.root / reference.kind / reference.fingerprint

    def find(self, reference: Reference) -> Record | None:
        """The record of a complete, undamaged artifact; None where there is none.

        Every file is checked against its size and checksum. A damaged artifact is reported and moved aside, so that
        the next run builds it again.
        """
        folder = self.folder(reference)
        if not (folder / RECORD).is_file():
            return None
        record = Record.model_validate_json((folder / RECORD).read_bytes())
        damaged = [file.path for file in record.files if not _is_intact(folder / file.path, file)]
        if not damaged:
            return record
        aside = self.root / _DAMAGED / f"{reference.kind}-{reference.fingerprint}-{uuid.uuid4().hex[:8]}"
        logger.warning("%s is damaged (%s); moved to %s, it will be built again", reference, ", ".join(damaged), aside)
        aside.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(aside)
        return None

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """An empty folder that a step fills; gone at the end unless `commit` has taken it."""
        folder = self.root / _DRAFTS / uuid.uuid4().hex
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self, draft: Path, record: Record) -> Record:
        """Make a filled draft the artifact that its record names, record last; returns the record with its files.

        Where another run has committed the same artifact meanwhile, that one stays.
        """
        files = [path for path in sorted(draft.rglob("*")) if path.is_file()]
        described = [_describe(path, draft) for path in files]
        complete = record.model_copy(update={"files": described})
        (draft / RECORD).write_text(complete.model_dump_json(indent=2), encoding="utf-8")
        target = self.folder(Reference(kind=record.kind, fingerprint=record.fingerprint))
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.rename(target)
        except OSError:
            if not (target / RECORD).is_file():
                raise
        return complete


def _describe(path: Path, folder: Path) -> StoredFile:
    return StoredFile(path=path.relative_to(folder).as_posix(), size=path.stat().st_size, sha256=file_sha256(path))


def _is_intact(path: Path, file: StoredFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size and file_sha256(path) == file.sha256


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
