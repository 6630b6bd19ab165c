"""The promoted checkpoint and the nights that led to it: `models/promoted.json`, always written at once and whole."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from cotpipe.errors import RunError, UserError
from cotpipe.records import Reference
from cotpipe.report import compare, number, percent
from cotpipe.runs import Run
from cotpipe.storage import Storage
from cotpipe.store import Store

MODELS = "models"
"""The store's folder for this file; its lease says whose turn it is to change it."""
_FILE = f"{MODELS}/promoted.json"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Promotion(_Model):
    """A checkpoint that became the one to use."""

    checkpoint: Reference
    run_id: str
    promoted_at: str  # UTC, ISO 8601
    why: str


class Taken(_Model):
    """A file of the inbox that a night took in."""

    name: str  # relative to the inbox
    size: int  # bytes
    problems: Reference


class Night(_Model):
    """What a night that had something to do came to."""

    run_id: str
    mining: Reference
    candidate: Reference
    promoted: bool
    why: str


class Models(_Model):
    """All of it; the newest is the last of each list."""

    promotions: list[Promotion] = []
    undone: list[Promotion] = []
    taken: list[Taken] = []
    nights: list[Night] = []

    @property
    def promoted(self) -> Promotion | None:
        """The promotion that counts."""
        return self.promotions[-1] if self.promotions else None

    @property
    def references(self) -> set[Reference]:
        """Every artifact that the next nights and an undo need."""
        checkpoints = {promotion.checkpoint for promotion in self.promotions}
        return checkpoints | {file.problems for file in self.taken} | {night.mining for night in self.nights}

    def with_promotion(self, checkpoint: Reference, run_id: str, why: str) -> "Models":
        """The same with another promoted checkpoint."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        promotion = Promotion(checkpoint=checkpoint, run_id=run_id, promoted_at=now, why=why)
        return self.model_copy(update={"promotions": [*self.promotions, promotion]})


def read_models(storage: Storage) -> Models:
    """What is written; empty where nothing has been promoted yet. Raises `RunError` for a broken file."""
    data = storage.read(_FILE)
    try:
        return Models.model_validate_json(data) if data else Models()
    except ValidationError as error:
        raise RunError(
            f"{_FILE} cannot be read ({error.errors()[0]['msg']}); put its last good version back"
        ) from error


def write_models(storage: Storage, models: Models) -> None:
    """Replace the file; hold the lease of `MODELS`."""
    storage.replace(_FILE, models.model_dump_json(indent=2).encode())


def write_night(storage: Storage, night: Night, taken: Sequence[Taken]) -> Models:
    """Write down a night, what it took in, and its promotion if there is one; once, however often it is called."""
    models = read_models(storage)
    if any(one.run_id == night.run_id for one in models.nights):
        return models
    models = models.model_copy(update={"nights": [*models.nights, night], "taken": [*models.taken, *taken]})
    if night.promoted:
        models = models.with_promotion(night.candidate, night.run_id, night.why)
    write_models(storage, models)
    return models


def promote_run(store: Store, run: Run) -> None:
    """Promote the last checkpoint of a run by hand.

    Raises `UserError` where the run has none that is whole.
    """
    checkpoint = run.references.get("stage3")
    if checkpoint is None or store.find(checkpoint) is None:
        raise UserError(f"run {run.run_id} has no whole stage-3 checkpoint; finish it with: cotpipe rerun {run.run_id}")
    write_models(store.storage, read_models(store.storage).with_promotion(checkpoint, run.run_id, "by hand"))


def undo_promotion(storage: Storage) -> Models:
    """Let the promotion before the last one count again.

    Raises `UserError` where nothing is promoted.
    """
    models = read_models(storage)
    if not models.promotions:
        raise UserError("nothing is promoted, so there is nothing to undo; promote a run: cotpipe promote RUN")
    *kept, last = models.promotions
    models = models.model_copy(update={"promotions": kept, "undone": [*models.undone, last]})
    write_models(storage, models)
    return models


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate may take the promoted checkpoint's place, and why."""

    promote: bool
    why: str


def judge(rows: Mapping[str, pd.DataFrame], accuracy_margin: float, token_margin: float) -> Verdict:
    """Compare the promoted checkpoint (`base`) and the candidate (`stage3`) on the same held-out problems.

    The candidate must be shown to be no worse: the 95 % interval of the paired change in accuracy stays above
    -`accuracy_margin` (a share), that of the change in length below `token_margin` (a share of the promoted one's
    mean tokens).
    """
    change = compare("base", "stage3", rows)
    most_tokens = token_margin * float(rows["base"]["num_tokens"].mean())
    mistakes = []
    if change.accuracy.low < -accuracy_margin:
        mistakes.append(f"it may lose more than {100 * accuracy_margin:g} points of accuracy")
    if change.tokens.high > most_tokens:
        mistakes.append(f"it may write more than {most_tokens:.1f} tokens more")
    figures = f"accuracy {percent(change.accuracy)}, tokens {number(change.tokens)}, {len(rows['base'])} problems"
    if mistakes:
        return Verdict(False, f"{' and '.join(mistakes)}: {figures}")
    return Verdict(True, f"neither less accurate nor longer than the margins allow: {figures}")
