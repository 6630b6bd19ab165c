"""When a candidate takes the promoted checkpoint's place, and what is written down of it."""

import pandas as pd
import pytest

from cotpipe.errors import RunError, UserError
from cotpipe.runs.promotion import (
    REGISTRY,
    ModelRegistry,
    Night,
    Taken,
    judge,
    read_registry,
    restore_registry,
    undo_promotion,
    write_night,
    write_registry,
)
from cotpipe.store.records import Reference
from cotpipe.store.storage import LocalStorage

FIRST, SECOND = (Reference(kind="stage3", fingerprint=digit * 32) for digit in "12")


def evaluations(correct: str, tokens: list[int]) -> pd.DataFrame:
    """`+` is right, `-` is wrong; repeated fifty times."""
    count = 50 * len(correct)
    return pd.DataFrame(
        {
            "problem_id": [f"p{number:04d}" for number in range(count)],
            "correct": [mark == "+" for mark in correct] * 50,
            "num_tokens": tokens * 50,
        }
    )


@pytest.mark.parametrize(
    ("before", "after", "tokens_before", "tokens_after", "promote", "why"),
    [
        (
            "++--",
            "++--",
            [100, 90, 80, 90],
            [100, 90, 80, 90],
            True,
            "neither less accurate nor longer",
        ),
        ("++--", "+++-", [100, 90, 80, 90], [60, 50, 50, 60], True, "accuracy +25.0 points"),
        (
            "++--",
            "+---",
            [100, 90, 80, 90],
            [100, 90, 80, 90],
            False,
            "lose more than 2 points of accuracy",
        ),
        (
            "++--",
            "+++-",
            [100, 90, 80, 90],
            [120, 110, 100, 90],
            False,
            "write more than 4.5 tokens more",
        ),
        (
            "++--",
            "+---",
            [100, 90, 80, 90],
            [140, 150, 100, 90],
            False,
            "accuracy and it may write more",
        ),
    ],
)
def test_a_candidate_must_be_shown_to_be_no_worse(
    before, after, tokens_before, tokens_after, promote, why
):
    promoted, candidate = evaluations(before, tokens_before), evaluations(after, tokens_after)
    verdict = judge(promoted, candidate, accuracy_margin=0.02, token_margin=0.05)
    assert verdict.promote == promote
    assert why in verdict.why


def test_a_few_problems_show_nothing():
    promoted, candidate = evaluations("++--", [90] * 4)[:8], evaluations("+-+-", [90] * 4)[:8]
    # No change in sum, but it may be much.
    assert not judge(promoted, candidate, accuracy_margin=0.02, token_margin=0.05).promote


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
    once = write_night(storage, night, [taken])
    assert write_night(storage, night, [taken]) == once == read_registry(storage)
    assert (len(once.nights), len(once.taken), len(once.promotions)) == (1, 1, 1)
    kept = night.model_copy(update={"run_id": "run-2", "promoted": False})
    assert write_night(storage, kept, []).promotions == once.promotions


def test_the_second_result_of_a_night_that_was_written_down_is_not_dropped_in_silence(tmp_path):
    storage = LocalStorage(tmp_path)
    night = Night(run_id="run-1", mining=None, candidate=FIRST, promoted=True, why="better")
    once = write_night(storage, night, [])
    other = night.model_copy(update={"candidate": SECOND})
    with pytest.raises(RunError, match=f"with the candidate {FIRST}, which counts; {SECOND} and"):
        write_night(storage, other, [])
    assert read_registry(storage) == once


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
    for use in (read_registry, lambda storage: write_night(storage, night, []), undo_promotion):
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
