"""Effects over seeds and problems: against closed forms, and how often noise is called an effect."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cotpipe.report.arms import contrasts, score_arm

SEEDS, PROBLEMS = 5, 40


def answers(correct: np.ndarray, tokens: np.ndarray | None = None, shared: bool = False):
    """Answers of an arm: one row of `correct` per seed, one column per problem."""
    num_seeds, num_problems = correct.shape
    seed = np.repeat(np.arange(num_seeds), num_problems)
    problem = np.tile(np.arange(num_problems), num_seeds)
    return pd.DataFrame(
        {
            "seed": seed,
            "problem_id": [f"p{p}" for p in problem],  # numbers, which seeds share in any case
            "question": [f"q{p}" if shared else f"s{s}q{p}" for s, p in zip(seed, problem, strict=True)],
            "correct": correct.ravel(),
            "num_tokens": np.full(correct.size, 50) if tokens is None else tokens.ravel(),
        }
    )  # fmt: skip


def drawn(rng, num_seeds=SEEDS, num_problems=PROBLEMS, level=0.5, between_seeds=0.0):
    shift = rng.normal(0, between_seeds, (num_seeds, 1))
    return rng.random((num_seeds, num_problems)) < level + shift


def test_with_problems_of_its_own_for_each_seed_it_is_students_interval_over_seeds():
    rng = np.random.default_rng(1)
    correct = drawn(rng, between_seeds=0.2)
    score = score_arm("a", answers(correct))
    means = correct.mean(axis=1)
    low, high = stats.t.interval(0.95, SEEDS - 1, loc=means.mean(), scale=stats.sem(means))
    assert score.num_seeds == SEEDS
    assert [score.accuracy.value, score.accuracy.low, score.accuracy.high] == pytest.approx(
        [means.mean(), low, high]
    )


def test_problems_that_all_seeds_share_widen_the_interval():
    rng = np.random.default_rng(2)
    hard = rng.random((1, PROBLEMS)) < 0.5  # all seeds fail the same problems
    correct = np.repeat(hard, SEEDS, axis=0)
    alone, shared = (score_arm("a", answers(correct, shared=one)).accuracy for one in (False, True))
    over_problems = stats.sem(hard[0]) * stats.t.ppf(0.975, SEEDS - 1)
    assert shared.high - shared.value == pytest.approx(over_problems, rel=0.15)
    assert shared.high - shared.low > alone.high - alone.low


@pytest.mark.parametrize("shared", [False, True])
def test_two_arms_that_are_alike_are_rarely_told_apart(shared):
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(400):
        arms = {
            name: answers(drawn(rng, between_seeds=0.1), rng.poisson(50, (SEEDS, PROBLEMS)), shared)
            for name in ("base", "other")
        }
        (contrast,) = contrasts("base", arms)
        wrong += contrast.accuracy.beyond_noise or contrast.tokens.beyond_noise
    assert wrong <= 56  # of 400; two tests at 5 % each: 39 are expected at most


def test_a_true_difference_of_the_size_that_is_called_detectable_is_mostly_found():
    rng = np.random.default_rng(4)
    found, sizes = 0, []
    for _ in range(200):
        base = drawn(rng, level=0.3)
        better = base | (rng.random(base.shape) < 0.17)
        (contrast,) = contrasts("base", {"base": answers(base), "better": answers(better)})
        found += contrast.accuracy.beyond_noise
        assert contrast.accuracy.detectable
        sizes.append(contrast.accuracy.detectable)
    assert np.mean(sizes) < 0.7 * 0.17  # the true difference
    assert found > 160


def test_tokens_are_compared_as_a_share_of_the_baselines():
    rng = np.random.default_rng(5)
    correct = drawn(rng)
    lengths = rng.integers(40, 60, correct.shape)
    arms = {"base": answers(correct, lengths), "short": answers(correct, lengths * 0.75)}
    arms["short"]["num_tokens"] += rng.integers(-2, 3, len(arms["short"]))
    (contrast,) = contrasts("base", arms)
    assert contrast.tokens.value == pytest.approx(-0.25, abs=0.01)
    assert re.fullmatch(r"saves 2\d\.\d % tokens, beyond noise", contrast.verdict)
    (back,) = contrasts("short", arms)
    assert re.fullmatch(r"writes 3\d\.\d % more tokens, beyond noise", back.verdict)


def test_verdicts_say_what_is_known():
    rng = np.random.default_rng(6)
    correct = drawn(rng)
    worse = correct & (rng.random(correct.shape) < 0.5)
    (contrast,) = contrasts("base", {"base": answers(correct), "worse": answers(worse)})
    assert contrast.verdict.startswith("loses ")
    assert contrast.verdict.endswith("points of accuracy, beyond noise")
    (alike,) = contrasts("base", {"base": answers(correct), "same": answers(drawn(rng))})
    assert alike.verdict.startswith("no difference shown; in 200 answers over 5 seeds, one of ")
    one = {"base": answers(correct[:1]), "other": answers(worse[:1])}
    (single,) = contrasts("base", one)
    assert single.verdict.startswith("no verdict: one seed tells nothing about other seeds")


def test_only_common_seeds_are_compared_and_other_problems_are_refused():
    rng = np.random.default_rng(7)
    correct = drawn(rng)
    (contrast,) = contrasts("base", {"base": answers(correct), "other": answers(correct[:3])})
    assert (contrast.num_seeds, contrast.num_answers) == (3, 3 * PROBLEMS)
    assert contrasts("base", {"other": answers(correct)}) == []
    with pytest.raises(AssertionError, match="different problems"):
        contrasts("base", {"base": answers(correct), "other": answers(correct[:, :7])})


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 6), st.integers(1, 12), st.integers(0, 2**32 - 1), st.booleans())
def test_the_interval_holds_the_value_and_the_two_directions_mirror(seeds, problems, seed, shared):
    rng = np.random.default_rng(seed)
    first, second = (answers(drawn(rng, seeds, problems), shared=shared) for _ in range(2))
    (there,) = contrasts("a", {"a": first, "b": second})
    (back,) = contrasts("b", {"a": first, "b": second})
    assert there.accuracy.low <= there.accuracy.value <= there.accuracy.high
    assert there.accuracy.value == pytest.approx(-back.accuracy.value)
    assert there.accuracy.p_value == pytest.approx(back.accuracy.p_value)
    assert 0 <= there.accuracy.p_value <= 1


def test_an_arm_with_one_common_seed_takes_nothing_from_the_others():
    rng = np.random.default_rng(8)
    base = drawn(rng)
    arms = {"base": answers(base), "other": answers(base & (rng.random(base.shape) < 0.8))}
    (alone,) = contrasts("base", arms)
    beside, single = contrasts("base", arms | {"single": answers(base[:1])})
    assert beside == alone
    assert single.num_seeds == 1


def test_where_nothing_varies_nothing_is_shown():
    wrong = np.zeros((3, 10), dtype=bool)
    (contrast,) = contrasts("base", {"base": answers(wrong), "other": answers(wrong)})
    assert contrast.verdict == (
        "no difference shown, and 30 answers over 3 seeds could have shown none: add seeds"
    )
    empty = {name: answers(wrong, np.zeros((3, 10))) for name in ("base", "other")}
    assert not contrasts("base", empty)[0].tokens.beyond_noise


def test_seeds_whose_means_agree_by_chance_show_no_more_than_their_answers():
    base, other = (
        np.array([np.arange(200) < right for right in counts]) for counts in ((97, 103), (104, 110))
    )
    base[:, :60], other[:, 140:] = ~base[:, :60], True  # not the same problems by far
    base[0], base[1] = np.roll(base[0], 3), np.roll(base[1], 50)
    gained = other.mean(axis=1) - base.mean(axis=1)
    assert gained[0] == gained[1]
    (contrast,) = contrasts("base", {"base": answers(base), "other": answers(other)})
    assert contrast.accuracy.high - contrast.accuracy.low > 0.1
    assert contrast.accuracy.p_value > 1e-3


def test_the_same_difference_everywhere_is_no_proof():
    base = answers(np.zeros((2, 30), dtype=bool), np.full((2, 30), 0.3))
    other = base.assign(num_tokens=0.1)
    (contrast,) = contrasts("base", {"base": base, "other": other})
    assert contrast.tokens.p_value == 1


@pytest.mark.parametrize("all_right", [False, True])
def test_answers_that_are_all_alike_leave_an_interval(all_right):
    accuracy = score_arm("a", answers(np.full((5, 200), all_right))).accuracy
    assert 0.001 < accuracy.high - accuracy.low < 0.01


def test_tokens_that_are_saved_do_not_hide_what_is_not_known_of_accuracy():
    rng = np.random.default_rng(9)
    base = drawn(rng)
    tokens = rng.integers(40, 60, base.shape)
    arms = {"base": answers(base, tokens), "other": answers(drawn(rng), tokens // 2)}
    (contrast,) = contrasts("base", arms)
    assert re.fullmatch(
        r"saves [45]\d\.\d % tokens, beyond noise; no difference in accuracy shown "
        r"\([+-]\d+\.\d points\), and one below \d+\.\d points could well have been missed",
        contrast.verdict,
    )


def test_a_single_seed_has_wilsons_interval():
    score = score_arm("a", answers(np.ones((1, 20), dtype=bool)))
    assert score.accuracy.high == 1
    assert 0.8 < score.accuracy.low < 0.9
