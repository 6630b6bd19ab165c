"""What the report says of the state that a stage kept."""

import pytest

from cotpipe.data.rows import ValidatedAnswer, write_rows
from cotpipe.report.validations import read_choice


def validations(tmp_path, kept: int, *states: tuple[int, int, int], problems: int = 200):
    rows = [
        ValidatedAnswer(step, step == kept, f"p{n:03d}", n < right, tokens)
        for step, right, tokens in states
        for n in range(problems)
    ]
    write_rows(tmp_path / "validations.parquet", ValidatedAnswer, rows)
    return read_choice("stage2", tmp_path / "validations.parquet")


def test_the_best_state_is_compared_with_the_start(tmp_path):
    choice = validations(tmp_path, 10, (0, 100, 60), (10, 120, 50), (20, 90, 40))
    assert (choice.kept_step, choice.last_step, choice.problems) == (10, 20, 200)
    assert (choice.first_accuracy, choice.last_accuracy) == (0.5, 0.45)
    assert choice.accuracy.value == pytest.approx(0.1)
    assert choice.tokens.value == pytest.approx(-10)
    assert "later states were no better" in choice.why
    assert not choice.few


def test_a_start_that_is_handed_on_is_told(tmp_path):
    choice = validations(tmp_path, 0, (0, 100, 60), (10, 80, 50))
    assert choice.accuracy.value == 0
    assert (
        "than the checkpoint it started from, nor about as accurate and shorter, so that"
        in choice.why
    )


def test_too_few_problems_to_decide_are_told(tmp_path):
    choice = validations(tmp_path, 10, (0, 10, 60), (10, 12, 50), problems=50)
    assert "50 held-out problems are too few" in choice.few


def test_a_stage_without_training_has_no_choice(tmp_path):
    assert validations(tmp_path, 0) is None
