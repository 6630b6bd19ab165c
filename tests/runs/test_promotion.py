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
