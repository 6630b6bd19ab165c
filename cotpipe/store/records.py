"""Artifact metadata: references, records, and fingerprints."""

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from cotpipe.errors import RunError, UserError, first_line
from cotpipe.store.storage import file_sha256

SCHEMA_VERSION = 1
RECORD = "record.json"
REFRESHED = "refreshed.json"
SET_ASIDE = "set-aside.json"
"""Marks an artifact that `gc` found unneeded; removed again by whoever uses the artifact."""
NEEDS = "needs.json"
"""The artifacts that a build in progress reads, for `gc`; there until the commit."""
SHARDS = "generations"
"""Artifact kind of the shards that a generating step merges into its output."""
RESERVED = frozenset({"comparisons", "inbox", "models", "runs"})
"""The store's other folders: no kinds of artifacts, whatever lies in them."""
_VERSIONED = (
    "cotpipe", "prefect", "torch", "transformers", "trl", "peft", "datasets", "duckdb", "pyarrow", "pandas", "s3fs"
)  # fmt: skip


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _inside(path: str) -> str:
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError(f"{path!r} points outside the artifact's folder")
    return path


def _not_reserved(kind: str) -> str:
    if kind in RESERVED:
        raise ValueError(f"the store's folder {kind} holds no artifacts")
    return kind


Kind = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$"), AfterValidator(_not_reserved)]
Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Reference(_Model):
    """The name of an artifact. Steps pass references to each other, not tables."""

    kind: Kind
    fingerprint: Fingerprint

    def __str__(self) -> str:
        return f"{self.kind}/{self.fingerprint}"


def reference_of_folder(folder: str) -> Reference | None:
    """The artifact whose folder this is, by its name; None if it is no folder of an artifact."""
    kind, _, fingerprint = folder.partition("/")
    try:
        return Reference(kind=kind, fingerprint=fingerprint)
    except ValidationError:
        return None


class StoredFile(_Model):
    """One file of an artifact."""

    path: Annotated[str, AfterValidator(_inside)]  # relative to the attempt's folder
    size: int  # bytes
    sha256: str


class Record(_Model):
    """The metadata of an artifact, stored as `record.json`."""

    schema_version: int = SCHEMA_VERSION
    kind: Kind
    fingerprint: Fingerprint
    attempt: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]
    step_version: int
    fields: dict[str, Any]  # the recipe fields that the step reads
    inputs: dict[str, str]  # input fingerprints, by kind
    parts: list[Reference] = []  # other artifacts used: shards, and artifacts named in the recipe
    counts: dict[str, int]  # rows kept and dropped, as reported by the step
    files: list[StoredFile]
    versions: dict[str, str]  # package versions at build time
    made_at: str  # UTC, ISO 8601
    seconds: float

    @property
    def reference(self) -> Reference:
        """The artifact's name."""
        return Reference(kind=self.kind, fingerprint=self.fingerprint)

    @property
    def folder(self) -> str:
        """Folder of its files in the store."""
        return f"{self.reference}/{self.attempt}"

    def contents(self, folder: str) -> str:
        """A hash of the files in one of its folders: that of a copy is the same."""
        return digest(
            {
                file.path: file.sha256
                for file in self.files
                if PurePosixPath(file.path).is_relative_to(folder)
            }
        )


def fingerprint_of(
    kind: str, step_version: int, fields: Mapping[str, Any], inputs: Mapping[str, str]
) -> str:
    """The identity of a step's output: 32 hex digits, a hash of canonical JSON.

    Args:
        kind: Artifact kind of the output.
        step_version: Version of the step's implementation.
        fields: Recipe fields that the step reads.
        inputs: Input fingerprints, by kind.

    Raises `TypeError` or `ValueError` for values that canonical JSON cannot represent (sets, NaN,
    objects).
    """
    return digest({"kind": kind, "version": step_version, "fields": fields, "inputs": inputs})


def digest(identity: Any) -> str:
    """Hash a value's canonical JSON to 32 hex digits."""
    canonical = json.dumps(
        identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


@functools.cache
def package_versions() -> dict[str, str]:
    """Versions of the packages that affect computation and storage."""
    return {name: importlib.metadata.version(name) for name in _VERSIONED}


def read_record(data: bytes, name: str) -> Record:
    """Parse a record from JSON; raises as `Artifacts.record` does."""
    try:
        version = json.loads(data)["schema_version"]
        if version > SCHEMA_VERSION:
            raise UserError(
                f"{name}: written by a newer cotpipe (record schema {version}, this version reads "
                f"{SCHEMA_VERSION}); upgrade cotpipe, or set COTPIPE_STORE to another store"
            )
        record = Record.model_validate_json(data)
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise RunError(
            f"{name}/{RECORD} is not a valid record ({first_line(error)}); "
            "delete the file to rebuild the artifact"
        ) from error
    if str(record.reference) != name:
        raise RunError(
            f"{name} is a copy of {record.reference}, not an artifact of its own; move the copy out "
            "of the store"
        )
    return record


def describe_file(path: Path, folder: Path) -> StoredFile:
    """The record entry of a file under `folder`."""
    return StoredFile(
        path=path.relative_to(folder).as_posix(), size=path.stat().st_size, sha256=file_sha256(path)
    )
