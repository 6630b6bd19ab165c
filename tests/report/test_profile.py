"""What counts as a loop, and quantiles of lengths."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotpipe.report.profile import ends_in_loop, quantile

RATIONALE = "Step 1: After buying 3 more: 5 + 3 = 8.\nStep 2: After losing 2: 8 - 2 = 6.\nAnswer: 6"


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("", False),
        (RATIONALE, False),
        ("0" * 39, False),
        ("0" * 40, True),
        ("\n" * 60, True),
        ("1 + 1 = 2, " * 3, False),
        ("1 + 1 = 2, " * 4 + "1 + 1", True),
        (RATIONALE + "\nStep 3: and again" * 6, True),
        ("\nStep 3: and again" * 6 + "\n" + RATIONALE, False),  # it found its way out
        ("The number is 1.\nThe number is 2.\nThe number is 3.\nThe number is 4.\n", False),
    ],
)
def test_a_loop_is_a_block_that_the_text_ends_with_over_and_over(text, loops):
    assert ends_in_loop(text) == loops


@given(st.text(max_size=30), st.text(min_size=10, max_size=200), st.integers(4, 6))
def test_every_block_repeated_at_the_end_is_found(before, block, times):
    assert ends_in_loop(before + block * times)


@given(st.lists(st.integers(0, 100), min_size=1), st.sampled_from([0.1, 0.5, 0.9, 1.0]))
def test_a_quantile_is_the_least_value_that_enough_do_not_exceed(values, part):
    found = quantile(values, part)
    assert found in values
    assert sum(value <= found for value in values) >= part * len(values) - 1e-9
    assert sum(value < found for value in values) < part * len(values)
