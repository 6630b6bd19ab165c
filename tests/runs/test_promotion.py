"""When a candidate takes the promoted checkpoint's place, and what is written down of it."""

import pytest

from cotpipe.errors import RunError, UserError
from cotpipe.runs.promotion import (
    REGISTRY,
    ModelRegistry,
    Night,
    Taken,
    read_registry,
    undo_promotion,
    write_night,
    write_registry,
)
from cotpipe.store.records import Reference
from cotpipe.store.storage import LocalStorage

FIRST, SECOND = (Reference(kind="stage3", fingerprint=digit * 32) for digit in "12")


def test_promotions_are_a_stack(tmp_path):
    storage = LocalStorage(tmp_path)
    assert read_registry(storage) == ModelRegistry()
    with pytest.raises(UserError, match="nothing is promoted"):
        undo_promotion(storage)
    write_registry(
        storage,
        ModelRegistry()
        .with_promotion(FIRST, "run-1", "better")
        .with_promotion(SECOND, "run-2", "better"),
    )
    assert read_registry(storage).promoted.checkpoint == SECOND
    assert undo_promotion(storage).promoted.checkpoint == FIRST
    registry = read_registry(storage)
    assert [one.checkpoint for one in registry.undone] == [SECOND]
    assert registry.references == {FIRST}
    assert undo_promotion(storage).promoted is None


def test_a_night_is_written_down_once(tmp_path):
    storage = LocalStorage(tmp_path)
    mining = Reference(kind="failures", fingerprint="3" * 32)
    night = Night(run_id="run-1", mining=mining, candidate=FIRST, promoted=True, why="better")
    taken = Taken(
        name="new.jsonl", size=9, problems=Reference(kind="problems", fingerprint="4" * 32)
    )
    once = write_night(storage, night, [taken])
    assert write_night(storage, night, [taken]) == once == read_registry(storage)
    assert (len(once.nights), len(once.taken), len(once.promotions)) == (1, 1, 1)
    kept = night.model_copy(update={"run_id": "run-2", "promoted": False})
    assert write_night(storage, kept, []).promotions == once.promotions


def test_a_broken_file_is_one_line(tmp_path):
    storage = LocalStorage(tmp_path)
    storage.replace(f"{REGISTRY}/promoted.json", b'{"promotions": [{}]}')
    with pytest.raises(RunError, match=r"models/promoted\.json cannot be read"):
        read_registry(storage)
