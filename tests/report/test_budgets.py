"""Accuracy within a budget of tokens, and two checkpoints at equal length and equal accuracy."""

from hypothesis import given, settings
from hypothesis import strategies as st

from cotpipe.report.budgets import Graded, at_equal_accuracy, at_equal_length, budgets_of

answers = st.lists(st.tuples(st.booleans(), st.integers(1, 50)), min_size=1, max_size=20)


def graded(rows) -> Graded:
    return Graded([right for right, _ in rows], [length for _, length in rows])


@given(answers)
def test_accuracy_grows_with_the_budget_up_to_that_without_one(rows):
    one = graded(rows)
    shares = [sum(one.right_within(budget)) for budget in range(51)]
    assert shares == sorted(shares)
    assert shares[-1] == sum(one.correct)


def test_equal_length_compares_the_same_problems():
    brief = Graded([True] * 30 + [False] * 10, [10] * 40)
    long = Graded([True] * 40, [30] * 40)
    at_10, at_30 = at_equal_length(brief, long)
    assert (at_10.budget, at_10.first.value, at_10.second.value) == (10, 0.75, 0)
    assert (at_30.budget, at_30.first.value, at_30.second.value) == (30, 0.75, 1)
    assert (at_10.change.value, at_30.change.value) == (0.75, -0.25)
    assert at_10.change.low > 0 > at_30.change.high


def test_equal_accuracy_compares_the_budgets_that_reach_it():
    # The 30 right answers of the first take 1 to 30 tokens; those of the second take twice as many.
    first = Graded([True] * 30 + [False] * 10, [*range(1, 31), *[50] * 10])
    second = Graded([True] * 40, [2 * length for length in range(1, 41)])
    half, *_, whole = at_equal_accuracy(first, second)
    assert (half.part, half.accuracy, half.first, half.second) == (0.5, 15 / 40, 15, 30)
    assert (whole.part, whole.accuracy, whole.first, whole.second) == (1, 0.75, 30, 60)
    assert (half.change.value, whole.change.value) == (-15, -30)
    assert half.change.high < 0


@settings(max_examples=20, deadline=None)  # each takes 10,000 resamples
@given(answers)
def test_a_checkpoint_needs_as_many_tokens_as_itself(rows):
    one = graded(rows)
    for found in at_equal_accuracy(one, one):
        assert found.first == found.second
        assert (found.change.value, found.change.low, found.change.high) == (0, 0, 0)
        assert sum(one.right_within(found.first)) / len(rows) >= found.accuracy


def test_without_a_right_answer_there_is_no_equal_accuracy():
    assert at_equal_accuracy(graded([(False, 3)]), graded([(True, 3)])) == []


def test_budgets_are_lengths_of_answers():
    assert budgets_of(Graded([True], [7]), Graded([False], [9])) == [7, 9]


def test_the_intervals_are_always_the_same():
    one, two = graded([(True, 5), (False, 9), (True, 4)]), graded([(True, 8), (True, 2), (True, 4)])
    assert at_equal_accuracy(one, two) == at_equal_accuracy(one, two)
