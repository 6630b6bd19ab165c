"""When a candidate takes the promoted checkpoint's place, and what is written down of it."""

import pytest

from cotpipe.errors import RunError, UserError
from cotpipe.runs.promotion import (
    REGISTRY,
    ModelRegistry,
    Night,
    Taken,
    read_registry,
    restore_registry,
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
        name="new.jsonl", sha256="5" * 64, problems=Reference(kind="problems", fingerprint="4" * 32)
    )
    once = write_night(storage, night, [taken], None)
    assert write_night(storage, night, [taken], None) == once == read_registry(storage)
    assert (len(once.nights), len(once.taken), len(once.promotions)) == (1, 1, 1)
    kept = night.model_copy(update={"run_id": "run-2", "promoted": False})
    assert write_night(storage, kept, [], FIRST).promotions == once.promotions


def test_the_second_result_of_a_night_that_was_written_down_is_not_dropped_in_silence(tmp_path):
    storage = LocalStorage(tmp_path)
    night = Night(run_id="run-1", mining=None, candidate=FIRST, promoted=True, why="better")
    once = write_night(storage, night, [], None)
    other = night.model_copy(update={"candidate": SECOND})
    with pytest.raises(RunError, match=f"with the candidate {FIRST}, which counts; {SECOND} and"):
        write_night(storage, other, [], None)
    assert read_registry(storage) == once


@pytest.mark.parametrize("start", [None, SECOND])
def test_a_night_promotes_nothing_over_a_checkpoint_that_it_was_not_compared_with(tmp_path, start):
    storage = LocalStorage(tmp_path)
    before = ModelRegistry().with_promotion(FIRST, "by-hand", "")
    write_registry(storage, before)
    night = Night(run_id="run-1", mining=None, candidate=SECOND, promoted=True, why="better")
    with pytest.raises(RunError, match=f"but {FIRST} is promoted now"):
        write_night(storage, night, [], start)
    assert read_registry(storage) == before


@pytest.mark.parametrize("content", [b"", b'{"promotions": [{}]}', b'{"promo', None])
def test_a_broken_registry_never_reads_as_nothing_promoted_and_can_be_brought_back(
    tmp_path, content
):
    storage = LocalStorage(tmp_path)
    before = ModelRegistry().with_promotion(FIRST, "run-1", "better")
    write_registry(storage, before)
    with pytest.raises(UserError, match="is valid, so there is nothing to restore"):
        restore_registry(storage)
    write_registry(storage, before.with_promotion(SECOND, "run-2", "better"))
    if content is None:
        storage.remove(f"{REGISTRY}/promoted.json")
    else:
        storage.replace(f"{REGISTRY}/promoted.json", content)
    night = Night(run_id="run-3", mining=None, candidate=SECOND, promoted=True, why="")
    for use in (
        read_registry,
        lambda storage: write_night(storage, night, [], None),
        undo_promotion,
    ):
        with pytest.raises(RunError, match=r"promoted\.json .*cotpipe promote --restore"):
            use(storage)
    assert restore_registry(storage) == before == read_registry(storage)


def test_without_a_copy_a_broken_registry_is_told_with_the_way_out(tmp_path):
    storage = LocalStorage(tmp_path)
    storage.replace(f"{REGISTRY}/promoted.json", b"")
    with pytest.raises(RunError, match="is empty, so it is not known what is promoted"):
        read_registry(storage)
    with pytest.raises(UserError, match="no valid copy of the registry; restore .* from a backup"):
        restore_registry(storage)
