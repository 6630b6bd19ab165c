"""The anchor: an older checkpoint that candidates are compared with, too, so that losses do not add up."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cotpipe.errors import UserError
from cotpipe.runs.log import find_run
from cotpipe.runs.promotion import ModelRegistry, last_checkpoint
from cotpipe.steps.student import stored_checkpoint
from cotpipe.store.artifacts import Store
from cotpipe.store.records import Reference

logger = logging.getLogger(__name__)

AGE = timedelta(days=30)
"""How long ago the anchor was promoted, if nobody names one."""
_LOST = "is not in the store, or damaged"


@dataclass(frozen=True)
class Anchor:
    """A checkpoint to compare with, and what it is."""

    checkpoint: Reference
    what: str


def anchor_of(
    registry: ModelRegistry, named: str | None, store: Store, now: datetime | None = None
) -> Anchor | None:
    """The anchor of a nightly run; None if it is the promoted checkpoint, or nothing is promoted.

    Args:
        registry: The model registry.
        named: `store:KIND/FINGERPRINT` or a run; if None, the checkpoint that was promoted `AGE` ago,
            or the first one.
        store: The store.
        now: The time; default: the current time.

    Raises:
        UserError: If the named anchor is not in the store, or is no checkpoint.
    """
    now = now or datetime.now(UTC)
    anchor = _named(named, store) if named else _promoted_before(registry, store, now)
    if anchor and registry.promoted and anchor.checkpoint == registry.promoted.checkpoint:
        return None
    return anchor


def _named(named: str, store: Store) -> Anchor:
    checkpoint = stored_checkpoint(named, key="anchor")
    if checkpoint is None:
        checkpoint = last_checkpoint(store, find_run(store.storage, named))
    another = "set anchor to another checkpoint (store:KIND/FINGERPRINT) or run"
    record = store.find(checkpoint)
    if record is None:
        raise UserError(f"anchor: {checkpoint} {_LOST}; {another}")
    if "model/config.json" not in {file.path for file in record.files}:
        raise UserError(f"anchor: {checkpoint} is not a checkpoint; {another}")
    return Anchor(checkpoint, f"the anchor {named}")


def _promoted_before(registry: ModelRegistry, store: Store, now: datetime) -> Anchor | None:
    """What was promoted `AGE` ago; if that is lost, the nearest older one, else a newer one."""
    old = [one for one in registry.promotions if _age(one.promoted_at, now) >= AGE]
    newer = [one for one in registry.promotions if one not in old]
    for promotion in [*reversed(old), *newer]:
        if store.find(promotion.checkpoint):
            what = f"the anchor, promoted at {promotion.promoted_at}"
            return Anchor(promotion.checkpoint, what)
        logger.warning("anchor: %s %s; another promotion is used", promotion.checkpoint, _LOST)
    return None


def _age(moment: str, now: datetime) -> timedelta:
    return now - datetime.fromisoformat(moment)
