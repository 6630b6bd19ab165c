import random
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from cotpipe.masks import MaskKind, choose_masked, num_masked_at, published_num_masked

kinds = st.sampled_from(get_args(MaskKind))


@given(kinds, st.integers(1, 20), st.integers(0, 25), st.integers(0, 2**32))
def test_masks_are_steps_of_the_rationale(kind, num_steps, num_masked, seed):
    masked = choose_masked(kind, num_steps, num_masked, random.Random(seed))
    assert masked == sorted(set(masked))
    assert all(0 <= index < num_steps for index in masked)
    expected = min(num_masked, max(num_steps - 2, 0) if kind == "keep_ends" else num_steps)
    assert len(masked) == expected
    assert masked == choose_masked(kind, num_steps, num_masked, random.Random(seed))


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32))
def test_consecutive_masks_have_no_gap(num_steps, num_masked, seed):
    masked = choose_masked("consecutive", num_steps, num_masked, random.Random(seed))
    assert masked == list(range(masked[0], masked[0] + len(masked)))


@given(st.integers(2, 20), st.integers(0, 2**32))
def test_scattered_masks_reach_both_halves(num_steps, seed):
    first, second = choose_masked("scattered", num_steps, 2, random.Random(seed))
    assert first < num_steps / 2 <= second + 0.5


@given(st.integers(2, 30))
def test_published_count(num_steps):
    assert published_num_masked(num_steps) == min(max(3, num_steps // 2), num_steps - 1)


@given(st.floats(0, 1), st.integers(1, 20))
def test_share_of_masks(share, num_steps):
    assert abs(num_masked_at(share, num_steps) - share * num_steps) <= 0.5 + 1e-9
    assert num_masked_at(0, num_steps) == 0
    assert num_masked_at(1, num_steps) == num_steps
