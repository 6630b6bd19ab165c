"""The anchor: an older checkpoint that candidates are compared with, too, so that losses do not add up."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cotpipe.errors import UserError
from cotpipe.runs.log import find_run
from cotpipe.runs.promotion import ModelRegistry, last_checkpoint
from cotpipe.steps.student import stored_checkpoint
from cotpipe.store.artifacts import Store
from cotpipe.store.records import Reference

AGE = timedelta(days=30)
"""How long ago the anchor was promoted, if nobody names one."""


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
        UserError: If the anchor is not in the store.
    """
    anchor = _named(named, store) if named else _promoted_before(registry, now or datetime.now(UTC))
    if anchor is None or (registry.promoted and anchor.checkpoint == registry.promoted.checkpoint):
        return None
    if store.find(anchor.checkpoint) is None:
        raise UserError(
            f"anchor: {anchor.checkpoint} is not in the store, or damaged; set anchor to another "
            "checkpoint (store:KIND/FINGERPRINT) or run"
        )
    return anchor


def _named(named: str, store: Store) -> Anchor:
    checkpoint = stored_checkpoint(named, key="anchor")
    if checkpoint is None:
        checkpoint = last_checkpoint(store, find_run(store.storage, named))
    return Anchor(checkpoint, f"the anchor {named}")


def _promoted_before(registry: ModelRegistry, now: datetime) -> Anchor | None:
    if not registry.promotions:
        return None
    old = [one for one in registry.promotions if _age(one.promoted_at, now) >= AGE]
    promotion = old[-1] if old else registry.promotions[0]
    return Anchor(promotion.checkpoint, f"the anchor, promoted at {promotion.promoted_at}")


def _age(moment: str, now: datetime) -> timedelta:
    return now - datetime.fromisoformat(moment)
