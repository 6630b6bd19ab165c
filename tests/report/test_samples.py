"""pass@k and majority votes, against every subset of the samples."""

from collections import Counter
from fractions import Fraction
from itertools import combinations
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotpipe.rationale.answers import answers_match
from cotpipe.report.samples import Votes, bootstrap_means, count_votes, majority_at, pass_at

votes_of_a_problem = st.builds(
    Votes,
    right=st.integers(0, 5),
    wrong=st.lists(st.integers(1, 3), max_size=4).map(tuple),
    silent=st.integers(0, 2),
).filter(lambda votes: 1 <= votes.total <= 11)


def spread(votes: Votes) -> list[str | None]:
    """The answers one by one; the right one is `right`, and None is no answer."""
    wrong = [name for name, size in zip("abcdefgh", votes.wrong, strict=False) for _ in range(size)]
    return ["right"] * votes.right + wrong + [None] * votes.silent


def vote(answers: tuple[str | None, ...]) -> Fraction:
    counted = Counter(answer for answer in answers if answer is not None)
    best = [name for name in counted if counted[name] == max(counted.values())]
    return Fraction("right" in best, max(len(best), 1))


@pytest.mark.parametrize(
    ("right", "of", "k", "expected"),
    [
        (0, 5, 1, 0.0),
        (0, 5, 5, 0.0),
        (5, 5, 1, 1.0),
        (1, 5, 1, 0.2),
        (1, 5, 5, 1.0),
        (3, 10, 2, 1 - 21 / 45),  # C(7, 2) of C(10, 2) pairs have none
        (3, 10, 5, 1 - 21 / 252),
    ],
)
def test_pass_at_k_is_that_of_the_paper(right, of, k, expected):
    assert pass_at(k, Votes(right, (of - right,))) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("right", "wrong", "silent", "k", "expected"),
    [
        (2, (1,), 0, 1, 2 / 3),
        (2, (1,), 0, 2, 2 / 3),  # of the pairs one agrees, and two are a draw
        (2, (1,), 0, 3, 1.0),
        (1, (2,), 0, 3, 0.0),
        (1, (1, 1), 0, 3, 1 / 3),  # three answers, once each
        (1, (), 4, 5, 1.0),  # what is silent has no vote
        (0, (), 4, 2, 0.0),
        (40, (24,), 0, 64, 1.0),
    ],
)
def test_majorities_by_hand(right, wrong, silent, k, expected):
    assert majority_at([k], Votes(right, wrong, silent)) == [pytest.approx(expected)]


@given(votes_of_a_problem)
def test_both_are_the_mean_over_every_subset(votes):
    answers, ks = spread(votes), range(1, votes.total + 1)
    for k, majority in zip(ks, majority_at(ks, votes), strict=True):
        subsets = list(combinations(answers, k))
        assert pass_at(k, votes) == pytest.approx(mean("right" in one for one in subsets))
        assert majority == pytest.approx(float(mean(vote(one) for one in subsets)))


@given(votes_of_a_problem)
def test_pass_at_k_grows_with_k_and_majorities_stay_below_it(votes):
    ks = range(1, votes.total + 1)
    passed = [pass_at(k, votes) for k in ks]
    assert passed == sorted(passed)
    assert passed[0] == pytest.approx(votes.right / votes.total)
    assert majority_at([1], votes) == [pytest.approx(passed[0])]
    assert all(
        0 <= won <= most + 1e-9 for won, most in zip(majority_at(ks, votes), passed, strict=True)
    )


@given(st.integers(1, 64), st.data())
def test_all_right_is_one_for_every_k(total, data):
    k = data.draw(st.integers(1, total))
    assert pass_at(k, Votes(total)) == majority_at([k], Votes(total))[0] == 1


def test_equal_answers_in_other_notations_are_one_vote():
    samples = [("1/2", True), ("0.25", False), ("1/4", False), (None, False), ("7", False)]
    assert count_votes(samples, answers_match) == Votes(right=1, wrong=(2, 1), silent=1)


def test_many_samples_are_counted_without_loss():
    votes = Votes(right=80, wrong=(60, 40, 10), silent=10)
    majorities = majority_at([1, 200], votes)
    assert majorities == [pytest.approx(0.4), pytest.approx(1.0)]


def test_the_bootstrap_keeps_the_columns_of_a_problem_together():
    values = [[float(number % 3 == 0), 2.0 * (number % 3 == 0), 1.0] for number in range(60)]
    first, doubled, constant = bootstrap_means(values)
    assert first.value == pytest.approx(1 / 3)
    assert (doubled.low, doubled.high) == pytest.approx((2 * first.low, 2 * first.high))
    assert (constant.low, constant.high) == pytest.approx((1, 1))
    # The normal interval of the mean, half as wide as 1.96 sqrt(p (1 - p) / n) = 0.119.
    assert (first.high - first.low) / 2 == pytest.approx(0.119, abs=0.01)
    assert bootstrap_means(values)[0] == first
