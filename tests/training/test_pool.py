"""The pool of prompts: in order without pass rates; by pass rate, with as little help as it takes."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cotpipe.data.rows import Example
from cotpipe.recipe.examples import PassRates
from cotpipe.training.pool import PromptPool

STEPS = ["a", "b", "c"]


def row(problem: str, hidden: int = 3, pass_rate: float | None = None) -> Example:
    return Example(problem, 0, [], "", list(range(hidden)), "1", STEPS, 3, pass_rate)


def ladder(problem: str, pass_rate: float) -> list[Example]:
    return [row(problem, hidden, pass_rate) for hidden in (3, 2, 1)]


def pool_of(*rates: float, max_helped: float = 1.0) -> tuple[PromptPool, list[Example]]:
    examples = [one for n, rate in enumerate(rates) for one in ladder(f"p{n}", rate)]
    return PromptPool(examples, range(len(examples)), PassRates(max_helped=max_helped)), examples


def test_without_pass_rates_rows_come_in_order_and_then_again():
    examples = [row(f"p{n % 2}") for n in range(5)]
    pool = PromptPool(examples, [0, 1, 3, 4])  # row 2 is too long
    drawn = [pool.draw(2) for _ in range(4)]
    assert drawn == [[0, 1], [3, 4], [0, 1], [3, 4]]
    pool.tell({0: 0.0, 1: 1.0})
    assert pool.draw(2) == [0, 1]  # nothing is learnt from results: the order is the curriculum


def test_prompts_that_teach_come_first_and_more_often():
    pool, _ = pool_of(1.0, 0.5, 0.75)
    assert pool.draw(2) == [3, 6]
    counts = Counter(row for _ in range(12) for row in pool.draw(1))
    assert counts[3] == counts[6] > counts[0] > 0


def test_what_always_fails_gets_help_in_the_first_round_before_what_is_always_solved():
    pool, _ = pool_of(1.0, 0.5, 0.0)
    assert pool.draw(2) == [3, 7]  # the bare question that it may solve, and a step of the other
    assert pool.draw(3)[2] == 0


def test_what_fails_with_all_help_comes_less_often():
    pool, _ = pool_of(0.5, 0.0)
    seen = []
    for _ in range(12):
        (drawn,) = pool.draw(1)
        pool.tell({drawn: 0.5 if drawn == 0 else 0.0})
        seen.append(drawn)
    counts = Counter(seen)
    assert counts[0] > counts[4] + counts[5] > 0


def test_what_always_fails_is_shown_with_help_and_then_with_less():
    pool, _ = pool_of(0.0)
    assert pool.draw(1) == [1]  # one step is shown at once
    pool.tell({1: 0.0})
    assert pool.draw(1) == [2]
    pool.tell({2: 0.25})
    assert pool.draw(1) == [2]
    pool.tell({2: 0.5})
    assert pool.draw(1) == [1]
    pool.tell({1: 1.0})
    assert pool.draw(1) == [0]
    assert pool.is_bare(0)
    assert not pool.is_bare(1)
    pool.tell({0: 0.0})
    assert pool.draw(1) == [1]


def test_the_top_of_the_ladder_stays():
    pool, _ = pool_of(0.0)
    for _ in range(5):
        (drawn,) = pool.draw(1)
        pool.tell({drawn: 0.0})
    assert drawn == 2


def test_a_pool_that_runs_dry_gives_what_it_has():
    pool, _ = pool_of(0.5, 0.5)
    first = pool.draw(2)
    assert pool.draw(3, taken=first) == []
    assert len(pool.draw(3)) == 2


def test_only_a_share_of_a_step_shows_help():
    pool, _ = pool_of(0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 1.0, 1.0, max_helped=0.25)
    first = pool.draw(4)
    assert [pool.is_bare(row) for row in first] == [False, True, True, True]
    more = pool.draw(4, taken=first)  # replacements: of eight prompts, two may show help
    assert sum(not pool.is_bare(row) for row in first + more) == 4  # too few others are left
    again = pool.draw(4)
    assert [pool.is_bare(row) for row in again] == [False, True, True, True]


def test_without_help_every_problem_is_asked_bare_also_where_all_fail():
    pool, examples = pool_of(0.0, 0.0, 0.0, 0.5, 1.0, max_helped=0)
    asked = []
    for _ in range(6):
        rows = pool.draw(2)
        pool.tell(dict.fromkeys(rows, 0.0))
        asked += rows
    assert all(map(pool.is_bare, asked))
    assert {examples[row].problem_id for row in asked} == {f"p{n}" for n in range(5)}


def test_rows_in_order_are_not_counted_as_help():
    examples = [row(f"p{n}", hidden=1) for n in range(4)]  # masks by the clock, without pass rates
    assert PromptPool(examples, range(4), PassRates(max_helped=0)).draw(2) == [0, 1]


@given(
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=6),
    st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=3, max_size=3), max_size=12),
)
def test_a_pool_goes_on_from_its_state(rates, observations):
    pool, _ = pool_of(*rates)
    for observed in observations:
        pool.tell(dict(zip(pool.draw(3), observed, strict=False)))
    copy, _ = pool_of(*rates)
    copy.restore(pool.state())
    for _ in range(3):
        drawn = pool.draw(2)
        assert copy.draw(2) == drawn
        assert len(set(drawn)) == len(drawn)
