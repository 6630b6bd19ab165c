import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotpipe.rationale.graph import RationaleGraph
from cotpipe.rationale.masks import choose_masked, masks, num_masked_at, published_num_masked

kinds = st.sampled_from(masks.names())


def random_graph(num_steps, seed):
    rng = random.Random(seed)
    uses = [
        sorted(rng.sample(range(step), rng.randint(0, min(step, 2)))) for step in range(num_steps)
    ]
    return RationaleGraph(
        uses,
        [rng.randint(-1, 4) for _ in uses],
        sorted(rng.sample(range(num_steps), num_steps // 2)),
    )


@pytest.mark.parametrize(
    ("kind", "num_masked", "allowed"),
    [
        ("critical", 2, [[0, 2], [0, 3], [2, 3]]),  # two of the chain 0 -> 2 -> 3
        ("critical", 3, [[0, 2, 3]]),
        ("critical", 4, [[0, 1, 2, 3], [0, 2, 3, 4]]),
        ("leaves", 2, [[0, 1], [0, 4], [1, 4]]),
        ("leaves", 3, [[0, 1, 4]]),
        ("near_answer", 2, [[1, 3], [2, 3]]),
        ("near_answer", 4, [[0, 1, 2, 3]]),
        ("far_from_answer", 1, [[0]]),
        ("far_from_answer", 3, [[0, 1, 2]]),
        ("far_from_answer", 4, [[0, 1, 2, 3]]),
    ],
)
def test_masks_by_the_rationale_graph(kind, num_masked, allowed):
    # 0 -> 2 -> 3 (the answer), 1 -> 3, and 4 for nothing
    graph = RationaleGraph([[], [], [0], [1, 2], []], [2, 1, 1, 0, -1], [0, 2, 3])
    seen = [choose_masked(kind, 5, num_masked, random.Random(seed), graph) for seed in range(60)]
    assert sorted({tuple(one) for one in seen}) == [tuple(one) for one in allowed]


@given(kinds, st.integers(1, 20), st.integers(0, 25), st.integers(0, 2**32))
def test_masks_are_steps_of_the_rationale(kind, num_steps, num_masked, seed):
    graph = random_graph(num_steps, seed)
    masked = choose_masked(kind, num_steps, num_masked, random.Random(seed), graph)
    assert masked == sorted(set(masked))
    assert all(0 <= index < num_steps for index in masked)
    expected = min(num_masked, max(num_steps - 2, 0) if kind == "keep_ends" else num_steps)
    assert len(masked) == expected
    assert masked == choose_masked(kind, num_steps, num_masked, random.Random(seed), graph)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32))
def test_consecutive_masks_have_no_gap(num_steps, num_masked, seed):
    masked = choose_masked(
        "consecutive", num_steps, num_masked, random.Random(seed), random_graph(num_steps, seed)
    )
    assert masked == list(range(masked[0], masked[0] + len(masked)))


@given(st.integers(2, 20), st.integers(0, 2**32))
def test_scattered_masks_reach_both_halves(num_steps, seed):
    first, second = choose_masked(
        "scattered", num_steps, 2, random.Random(seed), random_graph(num_steps, seed)
    )
    assert first < num_steps / 2 <= second + 0.5


@given(st.integers(2, 30))
def test_published_count(num_steps):
    assert published_num_masked(num_steps) == min(max(3, num_steps // 2), num_steps - 1)


@given(st.floats(0, 1), st.integers(1, 20))
def test_share_of_masks(share, num_steps):
    assert abs(num_masked_at(share, num_steps) - share * num_steps) <= 0.5 + 1e-9
    assert num_masked_at(0, num_steps) == 0
    assert num_masked_at(1, num_steps) == num_steps
