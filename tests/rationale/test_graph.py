import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotpipe.rationale.graph import rationale_graph


@pytest.mark.parametrize(
    ("question", "steps", "answer", "uses", "distance", "critical"),
    [
        (
            "She sold 48 and half as many.",
            ["48 / 2 = 24", "48 + 24 = 72"],
            "72",
            [[], [0]],
            [1, 0],
            [0, 1],
        ),
        (
            "Bags of 3 and 4, boxes of 5.",
            ["3 x 4 = 12", "5 x 2 = 10", "12 + 10 = 22", "Nice: 99 left"],
            "22",
            [[], [], [0, 1], []],
            [1, 1, 0, -1],
            [1, 2],
        ),
        ("Tom has 7.", ["In May he has 14.", "14 more make 28."], "28", [[], [0]], [1, 0], [0, 1]),
        ("1,200 in all", ["1,200 / 2 = 600.0", "600 + 1 = 601"], "601", [[], [0]], [1, 0], [0, 1]),
        (
            "",
            ["2 = 2", "3 = 3"],
            "5",
            [[], []],
            [-1, 0],
            [1],
        ),  # nothing produces the answer: the last step states it
        ("", [], "5", [], [], []),
    ],
)
def test_graphs(question, steps, answer, uses, distance, critical):
    graph = rationale_graph(question, steps, answer)
    assert (graph.uses, graph.distance, graph.critical) == (uses, distance, critical)


numbers = st.integers(0, 30).map(str)
texts = st.lists(
    st.one_of(numbers, st.sampled_from(["=", "+", "of", "½", "٣", "1,2,3", "0.50"])), max_size=9
).map(" ".join)


@given(texts, st.lists(texts, max_size=8), numbers)
def test_a_graph_points_backwards_and_ends_at_the_answer(question, steps, answer):
    graph = rationale_graph(question, steps, answer)
    assert len(graph.uses) == len(graph.distance) == len(steps)
    for step, used in enumerate(graph.uses):
        assert used == sorted(set(used))
        assert all(0 <= one < step for one in used)
        if graph.distance[step] > 0:
            assert any(
                step in later and graph.distance[index] == graph.distance[step] - 1
                for index, later in enumerate(graph.uses)
            )
    assert graph.distance.count(0) == (1 if steps else 0)
    chain = graph.critical
    assert all(low in graph.uses[high] for low, high in itertools.pairwise(chain))
    assert not steps or graph.distance[chain[-1]] == 0
