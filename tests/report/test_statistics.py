"""Intervals and tests of the report, against published examples."""

import pandas as pd
import pytest

from cotpipe.report.score import least_pairs, score_interval
from cotpipe.report.statistics import change_of_mean, change_of_share, holm, mean, share
from cotpipe.report.summary import comparisons


def test_share_has_wilsons_interval():
    estimate = share([True] * 81 + [False] * 182)  # 81 of 263, a textbook example (Newcombe 1998)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx(
        (0.30798, 0.25527, 0.36620), abs=1e-4
    )


def test_mean_has_students_interval():
    estimate = mean([1, 2, 3, 4, 5])
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx(
        (3, 1.03676, 4.96324), abs=1e-4
    )
    assert (mean([4]).low, mean([4]).high) == (4, 4)


@pytest.mark.parametrize(
    ("gained", "lost", "pairs", "low", "high"),
    [
        # Fagerland, Lydersen and Laake, Statistical Analysis of Contingency Tables (2017), chapter 8.
        (1, 7, 21, -0.5172, -0.0260),  # airway reactivity before and after a transplantation
        (6, 16, 161, -0.1240, -0.0054),  # response before and after a consolidation therapy
        # From the formula by hand: the bounds of equal pairs are ± z² / (n + z²).
        (0, 0, 20, -0.1611, 0.1611),
        (0, 0, 1000, -0.0038, 0.0038),
        # Nothing but losses, or gains.
        (0, 5, 5, -1, -0.1310),
        (5, 0, 5, 0.1310, 1),
    ],
)
def test_a_change_of_accuracy_has_tangos_interval(gained, lost, pairs, low, high):
    assert score_interval(gained, lost, pairs) == pytest.approx((low, high), abs=1e-4)
    before = [False] * gained + [True] * (pairs - gained)
    after = [True] * (pairs - lost) + [False] * lost
    change = change_of_share(before, after)
    assert (change.low, change.high) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(("margin", "pairs"), [(0.02, 189), (0.05, 73), (0.1, 35), (0.3, 9)])
def test_equal_pairs_are_within_a_margin_from_a_number_of_them_on(margin, pairs):
    assert least_pairs(margin) == pairs
    assert score_interval(0, 0, pairs)[0] >= -margin > score_interval(0, 0, pairs - 1)[0]


def test_paired_changes():
    before, after = [True] * 10 + [False] * 20, [True] * 8 + [False] * 2 + [True] * 12 + [False] * 8
    change = change_of_share(before, after)  # 12 gained, 2 lost
    assert change.value == pytest.approx(10 / 30)
    assert change.p_value == pytest.approx(0.012939, abs=1e-5)
    assert change.beyond_noise
    assert not change_of_share(before, before).beyond_noise
    assert change_of_mean([90, 80, 70, 60, 50, 60, 70], [40, 42, 41, 45, 44, 46, 47]).beyond_noise
    assert not change_of_mean([90, 80], [90, 80]).beyond_noise
    assert not change_of_mean([90], [9]).beyond_noise


def test_the_test_of_a_mean_is_fishers():
    # Darwin's maize, Fisher, The Design of Experiments (1935), section 21: of the 32,768 sums with
    # other signs, 863 are as large or larger, and as many as small or smaller.
    differences = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    change = change_of_mean([0] * 15, differences)
    assert change.p_value == pytest.approx(2 * 863 / 32768, abs=0.005)
    assert change_of_mean([0] * 15, differences) == change


def evaluated(tokens: list[int]) -> pd.DataFrame:
    count = len(tokens)
    return pd.DataFrame(
        {"problem_id": range(count), "correct": [True] * count, "num_tokens": tokens}
    )


def test_four_runaways_do_not_make_a_stage_that_writes_shorter_one_that_writes_longer():
    rows = {"base": evaluated([100] * 200), "stage1": evaluated([99] * 196 + [500] * 4)}
    (change,) = comparisons({"stage1": "student"}, rows)
    assert change.tokens.value > 0
    assert change.median_tokens == -1
    assert change.verdict == "changes neither accuracy nor length beyond noise"
    rows = {"base": evaluated([100] * 200), "stage1": evaluated([99] * 200)}
    (change,) = comparisons({"stage1": "student"}, rows)
    assert change.verdict == "saves tokens beyond noise"


def test_holms_correction():
    # Holm (1979); the figures are those of R's p.adjust.
    assert holm([0.01, 0.01, 0.5, 0.9]) == pytest.approx([0.04, 0.04, 1, 1])
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_a_report_of_many_tests_is_not_wrong_more_often_than_one_test():
    # One comparison of ten problems is significant by itself (p = 2 / 2^7), but not among ten tests.
    shorter = [100] * 3 + [90] * 7
    rows = {name: evaluated([100] * 10) for name in ("base", "stage1", "stage2", "stage3")}
    rows["stage2"] = rows["stage3"] = evaluated(shorter)
    (alone,) = comparisons({"stage1": "student"}, {"base": rows["base"], "stage1": rows["stage3"]})
    assert alone.tokens.p_value == pytest.approx(2 * 2 / 2**7)
    found = comparisons({"stage1": "student", "stage2": "stage1", "stage3": "stage2"}, rows)
    assert len(found) == 5
    assert not any(one.tokens.beyond_noise for one in found)
    assert found[0].tokens.p_value == pytest.approx(10 * 2 / 2**7)
