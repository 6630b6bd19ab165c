"""Which older checkpoint a candidate is compared with, too."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cotpipe.errors import UserError
from cotpipe.runs.anchor import anchor_of
from cotpipe.runs.promotion import ModelRegistry, Promotion
from cotpipe.store.artifacts import Store
from cotpipe.store.records import Reference
from cotpipe.store.storage import LocalStorage
from tests.helpers.store_before import BEFORE

NOW = datetime(2026, 11, 25, tzinfo=UTC)
KINDS = ("stage1", "stage2", "stage3", "student")


@pytest.fixture
def store() -> Store:
    return Store(LocalStorage(BEFORE / "store"))


@pytest.fixture
def checkpoints(store) -> list[Reference]:
    """Four checkpoints that the store has."""
    return [next(iter(store.records(kind))).reference for kind in KINDS]


def promoted(checkpoints: list[Reference], *days: int) -> ModelRegistry:
    """The checkpoints, promoted so many days ago."""
    moments = [(NOW - timedelta(days=one)).isoformat(timespec="seconds") for one in days]
    return ModelRegistry(
        promotions=[
            Promotion(checkpoint=one, run_id="r", promoted_at=at, why="")
            for one, at in zip(checkpoints, moments, strict=False)
        ]
    )


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        ((), None),
        ((0,), None),  # it is the promoted one, which the candidate is compared with anyway
        ((40,), None),
        ((3, 2, 1), 0),  # the first one, as none is a month old
        ((40, 30, 2, 1), 1),  # what was promoted a month ago
        ((90, 60), None),
        ((90, 60, 29), 1),
    ],
)
def test_losses_are_counted_from_the_checkpoint_of_a_month_ago(store, checkpoints, days, expected):
    anchor = anchor_of(promoted(checkpoints, *days), None, store, NOW)
    assert (anchor and anchor.checkpoint) == (None if expected is None else checkpoints[expected])


def test_an_anchor_can_be_named_by_its_artifact_or_its_run(store, checkpoints):
    registry = promoted(checkpoints, 90, 60, 29)
    anchor = anchor_of(registry, f"store:{checkpoints[3]}", store, NOW)
    assert anchor
    assert anchor.checkpoint == checkpoints[3]
    (run,) = (Path(BEFORE) / "store" / "runs").iterdir()
    anchor = anchor_of(ModelRegistry(), run.stem, store, NOW)
    assert anchor
    assert (anchor.checkpoint.kind, anchor.what) == ("stage3", f"the anchor {run.stem}")


@pytest.mark.parametrize(
    ("named", "part"),
    [
        ("store:stage3/xyz", "anchor: 'store:stage3/xyz' is not a checkpoint"),
        (f"store:stage3/{'0' * 32}", "anchor: stage3/0+ is not in the store"),
        ("nobody", "no run is called 'nobody'"),
    ],
)
def test_an_anchor_that_is_not_there_is_told_before_the_night_trains(store, named, part):
    with pytest.raises(UserError, match=part):
        anchor_of(ModelRegistry(), named, store, NOW)


@pytest.mark.parametrize("kind", ["rationales", "evaluation-stage1"])
def test_an_anchor_that_is_no_checkpoint_is_told_before_the_night_trains(store, kind):
    reference = next(iter(store.records(kind))).reference
    with pytest.raises(UserError, match=f"anchor: {reference} is not a checkpoint"):
        anchor_of(ModelRegistry(), f"store:{reference}", store, NOW)


@pytest.mark.parametrize(
    ("lost", "expected"),
    [
        ({1}, 0),  # the next older one
        ({0, 1}, 2),  # no older one is left: the next newer one
        ({0, 1, 2}, None),  # only the promoted one is left, which counts anyway
        ({0, 1, 2, 3}, None),  # the step that fetches the promoted one says so
    ],
)
def test_a_lost_checkpoint_of_a_month_ago_is_replaced_by_another_promotion(
    store, checkpoints, caplog, monkeypatch, lost, expected
):
    gone = {checkpoints[one] for one in lost}
    find = store.find
    monkeypatch.setattr(store, "find", lambda one: None if one in gone else find(one))
    anchor = anchor_of(promoted(checkpoints, 60, 40, 20, 1), None, store, NOW)
    assert (anchor and anchor.checkpoint) == (None if expected is None else checkpoints[expected])
    assert f"anchor: {checkpoints[1]} is not in the store, or damaged" in caplog.text
