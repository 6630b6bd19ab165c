"""Brevity is paid among right completions alone, and never lifts a wrong one above a right one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotpipe.rationale.brevity import pay_brevity
from cotpipe.rationale.rewards import RewardParts, Target, correct_first_reward

TARGET = Target("72", teacher_steps=3, teacher_length=40)


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        ("Step 1: 48 + 24 = 72\nAnswer: 72", 1),
        ("Step 1: 48 + 24 = 72\nAnswer: 72.0", 1),
        ("Step 1: a\nStep 2: b\nStep 3: c\nStep 4: d\nAnswer: 72", 1),  # steps are not counted
        ("Step 1: 48 + 24 = 71\nAnswer: 71", 0),
        ("Answer: 72", 0),
        ("So, Step 1: 48 + 24. Answer: 72", 0),  # unlike the published rewards, lines are needed
        ("72", 0),
        ("", 0),
    ],
)
def test_correct_first(completion, reward):
    assert correct_first_reward(completion, TARGET).reward == reward


def parts(right: bool, valid: bool = True) -> RewardParts:
    paid = float(right and valid)
    return RewardParts(paid, right, valid, paid, 0.0, 0.0)


R, W, M = parts(True), parts(False), parts(True, valid=False)


@pytest.mark.parametrize(
    ("group", "lengths", "min_pass_rate", "rewards"),
    [
        ([R, R, R, R], [50, 50, 50, 50], 0.5, [1, 1, 1, 1]),
        ([R, R, W, W], [50, 75, 5, 5], 0.5, [1, 0.9, 0, 0]),
        ([R, R, W, W], [50, 75, 5, 5], 0.75, [1, 1, 0, 0]),  # too few are right
        ([R, M, R, R], [50, 5, 100, 500], 0.75, [1, 0, 0.8, 0.8]),  # a malformed one sets no pace
        ([W, W, W, M], [1, 2, 3, 4], 0.0, [0, 0, 0, 0]),
        ([R], [0], 0.0, [1]),
    ],
)
def test_brevity_of_a_group(group, lengths, min_pass_rate, rewards):
    paid = pay_brevity(group, lengths, 0.2, min_pass_rate)
    assert [part.reward for part in paid] == pytest.approx(rewards)


@given(
    st.lists(st.tuples(st.sampled_from([R, W, M]), st.integers(0, 2000)), min_size=1, max_size=16),
    st.floats(0, 0.5),
    st.floats(0, 1),
)
def test_hierarchy_bounds_and_order(group, weight, min_pass_rate):
    before, lengths = [part for part, _ in group], [length for _, length in group]
    after = pay_brevity(before, lengths, weight, min_pass_rate)
    right = [(part, n) for part, n in zip(after, lengths, strict=True) if part.base]
    assert all(part.reward == 0 for part in after if not part.base)
    assert all(1 - weight - 1e-6 <= part.reward <= 1 for part, _ in right)
    assert all(part.reward == pytest.approx(part.base + part.length) for part in after)
    for one, n in right:
        assert all(one.reward >= other.reward for other, m in right if n <= m)
