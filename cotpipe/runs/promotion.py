"""The model registry, `models/promoted.json`: promoted checkpoints and nightly runs."""

from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from cotpipe.errors import RunError, UserError
from cotpipe.runs.log import Run
from cotpipe.store.artifacts import Store
from cotpipe.store.records import Reference
from cotpipe.store.storage import Storage

REGISTRY = "models"
"""The directory of the registry in the store; only the holder of its lease may write."""
_FILE = f"{REGISTRY}/promoted.json"
_PREVIOUS = f"{REGISTRY}/promoted.previous.json"
"""The registry before the last change, to restore from."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Promotion(_Model):
    """The promotion of a checkpoint."""

    checkpoint: Reference
    run_id: str
    promoted_at: str  # UTC, ISO 8601
    why: str


class Taken(_Model):
    """A file of the inbox that a nightly run ingested."""

    name: str  # relative to the inbox
    sha256: str  # of the content
    problems: Reference
    out: bool = False  # taken by mistake, and left alone while its content is the same


class Night(_Model):
    """The outcome of a nightly run that was not skipped."""

    run_id: str
    mining: Reference | None  # None if the curriculum does not mine failures
    candidate: Reference
    promoted: bool
    why: str


class ModelRegistry(_Model):
    """The promoted checkpoint and the history that led to it; each list is oldest first."""

    promotions: list[Promotion] = []
    undone: list[Promotion] = []
    taken: list[Taken] = []
    nights: list[Night] = []

    @property
    def promoted(self) -> Promotion | None:
        """The current promotion, if any."""
        return self.promotions[-1] if self.promotions else None

    @property
    def references(self) -> set[Reference]:
        """All artifacts that future nightly runs and an undo need."""
        checkpoints = {promotion.checkpoint for promotion in self.promotions}
        return (
            checkpoints
            | {file.problems for file in self.taken}
            | {night.mining for night in self.nights if night.mining}
        )

    def with_promotion(self, checkpoint: Reference, run_id: str, why: str) -> "ModelRegistry":
        """A copy of the registry with a new promotion."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        promotion = Promotion(checkpoint=checkpoint, run_id=run_id, promoted_at=now, why=why)
        return self.model_copy(update={"promotions": [*self.promotions, promotion]})


def read_registry(storage: Storage) -> ModelRegistry:
    """Read the registry; empty if there never was one. Raises `RunError` if it is broken or lost."""
    data = storage.read(_FILE)
    if data is None and storage.read(_PREVIOUS) is None:
        return ModelRegistry()
    try:
        return ModelRegistry.model_validate_json(data or b"")
    except ValidationError as error:
        why = f"cannot be read ({error.errors()[0]['msg']})" if data else "is empty"
        raise RunError(
            f"{storage.location(_FILE)} {why if data is not None else 'is missing'}, so it is not "
            "known what is promoted; restore its previous version with: cotpipe promote --restore"
        ) from error


def write_registry(storage: Storage, registry: ModelRegistry) -> None:
    """Replace the registry atomically, and keep a copy of the one before.

    The caller must hold the lease of `REGISTRY`, and have read the registry.
    """
    if before := storage.read(_FILE):
        storage.replace(_PREVIOUS, before)
    storage.replace(_FILE, registry.model_dump_json(indent=2).encode())


def restore_registry(storage: Storage) -> ModelRegistry:
    """Restore the registry's previous version; the caller must hold the lease.

    Raises `UserError` if nothing is broken, or there is no valid copy.
    """
    try:
        read_registry(storage)
    except RunError:
        pass
    else:
        raise UserError(
            f"{storage.location(_FILE)} is valid, so there is nothing to restore; to roll back a "
            "promotion: cotpipe promote --undo"
        )
    data = storage.read(_PREVIOUS)
    try:
        registry = ModelRegistry.model_validate_json(data or b"")
    except ValidationError as error:
        raise UserError(
            f"{storage.location(_PREVIOUS)} is no valid copy of the registry; restore {_FILE} from a "
            f"backup, or remove both files to start from nothing promoted"
        ) from error
    storage.replace(_FILE, registry.model_dump_json(indent=2).encode())
    return registry


def recorded_night(registry: ModelRegistry, suffix: str) -> Night | None:
    """The night of the flow run whose id starts with `suffix`, if it has been written down."""
    return next((one for one in registry.nights if one.run_id.endswith(f"-{suffix}")), None)


def write_night(
    storage: Storage, night: Night, taken: Sequence[Taken], start: Reference | None
) -> ModelRegistry:
    """Record a nightly run, the files it ingested, and its promotion, if any. Idempotent.

    Args:
        storage: The storage of the store; the caller must hold the lease of the registry.
        night: The nightly run.
        taken: The files that it ingested.
        start: The checkpoint that was promoted when it began, if any: what it was compared with.

    Raises:
        RunError: The run is recorded with another result, which is kept, or another checkpoint has
            been promoted since it began.
    """
    registry = read_registry(storage)
    for one in registry.nights:
        if one.run_id == night.run_id:
            known = {file.sha256 for file in registry.taken}
            if one.candidate != night.candidate or not {file.sha256 for file in taken} <= known:
                raise RunError(
                    f"night {night.run_id} has been written down with the candidate {one.candidate}, "
                    f"which counts; {night.candidate} and its files are left for the next night"
                )
            return registry
    promoted = registry.promoted.checkpoint if registry.promoted else None
    if promoted != start:
        raise RunError(
            f"night {night.run_id} compared its candidate with {start or 'the student'}, but "
            f"{promoted or 'nothing'} is promoted now; nothing was promoted, and its files are left "
            "for the next night"
        )
    registry = registry.model_copy(
        update={"nights": [*registry.nights, night], "taken": [*registry.taken, *taken]}
    )
    if night.promoted:
        registry = registry.with_promotion(night.candidate, night.run_id, night.why)
    write_registry(storage, registry)
    return registry


def last_checkpoint(store: Store, run: Run) -> Reference:
    """The checkpoint of a run's last stage.

    Raises `UserError` if that is missing or damaged.
    """
    checkpoint = run.references.get(run.checkpoints[-1]) if run.checkpoints else None
    if checkpoint is None or store.find(checkpoint) is None:
        raise UserError(
            f"run {run.run_id} has no intact checkpoint of its last stage; finish it with: "
            f"cotpipe rerun {run.run_id}"
        )
    return checkpoint


def promote_run(store: Store, run: Run) -> None:
    """Promote the last checkpoint of a run by hand.

    Raises `UserError` if that is missing or damaged.
    """
    checkpoint = last_checkpoint(store, run)
    registry = read_registry(store.storage)
    write_registry(store.storage, registry.with_promotion(checkpoint, run.run_id, "by hand"))


def undo_promotion(storage: Storage) -> ModelRegistry:
    """Roll back to the previous promotion.

    Raises `UserError` if nothing is promoted.
    """
    registry = read_registry(storage)
    if not registry.promotions:
        raise UserError(
            "nothing is promoted, so there is nothing to undo; promote a run: cotpipe promote RUN"
        )
    *kept, last = registry.promotions
    registry = registry.model_copy(update={"promotions": kept, "undone": [*registry.undone, last]})
    write_registry(storage, registry)
    return registry
