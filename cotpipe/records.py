"""What is known of an artifact: its name, its record, and how both are made."""

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from cotpipe.errors import RunError, UserError
from cotpipe.storage import file_sha256

SCHEMA_VERSION = 1
RECORD = "record.json"
SHARDS = "generations"
"""Kind of the shards that generating steps put their output together from."""
_VERSIONED = (
    "cotpipe", "prefect", "torch", "transformers", "trl", "peft", "datasets", "duckdb", "pyarrow", "pandas", "s3fs"
)  # fmt: skip


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _inside(path: str) -> str:
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError(f"{path!r} leads out of the artifact's folder")
    return path


Kind = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Reference(_Model):
    """What travels between steps in place of their tables: the name of an artifact."""

    kind: Kind
    fingerprint: Fingerprint

    def __str__(self) -> str:
        return f"{self.kind}/{self.fingerprint}"


class StoredFile(_Model):
    """One file of an artifact."""

    path: Annotated[str, AfterValidator(_inside)]  # relative to the attempt's folder
    size: int  # bytes
    sha256: str


class Record(_Model):
    """What an artifact says about itself."""

    schema_version: int = SCHEMA_VERSION
    kind: Kind
    fingerprint: Fingerprint
    attempt: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]
    step_version: int
    fields: dict[str, Any]  # the recipe fields that the step reads
    inputs: dict[str, str]  # fingerprints of the inputs, by their kind
    parts: list[Reference] = []  # what else it was made of: its shards, and what the recipe names
    counts: dict[str, int]  # rows kept and dropped, as the step reports them
    files: list[StoredFile]
    versions: dict[str, str]  # packages that made it
    made_at: str  # UTC, ISO 8601
    seconds: float

    @property
    def reference(self) -> Reference:
        """The artifact's name."""
        return Reference(kind=self.kind, fingerprint=self.fingerprint)

    @property
    def folder(self) -> str:
        """Where its files lie in the store."""
        return f"{self.reference}/{self.attempt}"


def fingerprint_of(kind: str, step_version: int, fields: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """The identity of a step's output: 32 hex digits over canonical JSON.

    Raises `TypeError` or `ValueError` for what canonical JSON cannot hold (sets, NaN, objects).
    """
    return digest({"kind": kind, "version": step_version, "fields": fields, "inputs": inputs})


def digest(identity: Any) -> str:
    """32 hex digits over the canonical JSON of a value."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def package_versions() -> dict[str, str]:
    """The versions of what decides how things are computed and stored."""
    return {name: importlib.metadata.version(name) for name in _VERSIONED}


def read_record(data: bytes, name: str) -> Record:
    """A record from its JSON; see `Store.record` for what it raises."""
    try:
        version = json.loads(data)["schema_version"]
        if version > SCHEMA_VERSION:
            raise UserError(
                f"{name}: a newer cotpipe made this artifact (record schema {version}, this one reads "
                f"{SCHEMA_VERSION}); bring cotpipe up to date, or set COTPIPE_STORE to another store"
            )
        return Record.model_validate_json(data)
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise RunError(
            f"{name}/{RECORD} is not a record ({str(error).splitlines()[0]}); remove that file to build it again"
        ) from error


def describe_file(path: Path, folder: Path) -> StoredFile:
    """What a record says about a file under `folder`."""
    return StoredFile(path=path.relative_to(folder).as_posix(), size=path.stat().st_size, sha256=file_sha256(path))
