"""When a candidate may take a checkpoint's place, and when nothing can be said."""

import random

import pandas as pd
import pytest
from scipy.stats import binom

from cotpipe.report.betting import growth_bound, least_problems
from cotpipe.report.gate import Margins, all_of, judge, keeps_accuracy, keeps_length
from cotpipe.report.score import score_interval

MARGINS = Margins(accuracy=0.02, tokens=0.05, longest=200)


def evaluations(correct: str, tokens: list[int], times: int = 100) -> pd.DataFrame:
    """`+` is right, `-` is wrong; repeated."""
    return pd.DataFrame(
        {
            "problem_id": [f"p{number:04d}" for number in range(times * len(correct))],
            "correct": [mark == "+" for mark in correct] * times,
            "num_tokens": tokens * times,
        }
    )


@pytest.mark.parametrize(
    ("before", "after", "tokens_before", "tokens_after", "decision", "why"),
    [
        ("++--", "++--", [100, 90, 80, 90], [100, 90, 80, 90], "promoted", "accuracy +0.0 points"),
        ("++--", "+++-", [100, 90, 80, 90], [60, 50, 50, 60], "promoted", "accuracy +25.0 points"),
        (
            "++--", "+---", [100, 90, 80, 90], [100, 90, 80, 90],
            "kept back", "it may lose more than 2 points of accuracy",
        ),
        (
            "++--", "+++-", [100, 90, 80, 90], [120, 110, 100, 90],
            "kept back", "it may write more than 5 % longer",
        ),
    ],
)  # fmt: skip
def test_a_candidate_must_be_shown_to_be_no_worse(
    before, after, tokens_before, tokens_after, decision, why
):
    rows = evaluations(before, tokens_before), evaluations(after, tokens_after)
    verdict = judge(*rows, MARGINS)
    assert verdict.decision == decision
    assert verdict.promote == (decision == "promoted")
    assert why in verdict.why


@pytest.mark.parametrize("gains", [0.0, 0.01, 0.05])
@pytest.mark.parametrize(("margin", "problems"), [(0.02, 189), (0.02, 500), (0.05, 100)])
def test_a_candidate_that_loses_the_whole_margin_passes_in_one_of_forty_nights(
    margin, problems, gains
):
    # Exactly: over all numbers of lost and gained problems that are likely at all.
    losses, level = gains + margin, 0.0
    for lost in range(int(binom.isf(1e-6, problems, losses)) + 1):
        seen = binom.pmf(lost, problems, losses)
        rest = problems - lost
        for gained in range(int(binom.isf(1e-6, rest, gains / (1 - losses))) + 1 if gains else 1):
            if score_interval(gained, lost, problems)[0] >= -margin:
                level += seen * binom.pmf(gained, rest, gains / (1 - losses))
    assert 0.005 < level < 0.026


@pytest.mark.parametrize("count", [1, 5, 20, 188])
def test_a_few_equal_problems_promote_nothing(count):
    rows = evaluations("+", [90], times=count)
    verdict = judge(rows, rows, MARGINS)
    assert verdict.decision == "cannot decide"
    assert "equal checkpoints pass from 189 on" in verdict.why


def test_a_few_problems_that_are_all_gained_promote_nothing_either():
    verdict = keeps_accuracy([False] * 50, [True] * 50, 0.02)
    assert verdict.decision == "cannot decide"


def test_without_a_margin_a_candidate_must_be_better():
    assert keeps_accuracy([True] * 500, [True] * 500, 0).decision == "kept back"
    assert keeps_accuracy([False] * 9 + [True] * 41, [True] * 50, 0).decision == "promoted"
    assert keeps_length([90] * 500, [90] * 500, 0, 200).decision == "kept back"
    assert keeps_length([90] * 500, [60] * 500, 0, 200).decision == "promoted"


def test_equal_answers_pass_from_the_number_of_problems_that_is_named():
    verdict = keeps_length([90.0] * 50, [90.0] * 50, 0.05, 200)
    least = least_problems(90, 200, 0.05)
    assert verdict.decision == "cannot decide"
    assert f"equal answers pass from {least} on" in verdict.why
    assert keeps_length([90.0] * least, [90.0] * least, 0.05, 200).promote
    assert not keeps_length([90.0] * (least - 1), [90.0] * (least - 1), 0.05, 200).promote


def test_what_is_much_shorter_needs_fewer_problems():
    assert keeps_length([90.0] * 80, [60.0] * 80, 0.05, 200).promote


def test_a_checkpoint_that_writes_nothing_is_no_measure_of_length():
    assert keeps_length([0.0] * 500, [9.0] * 500, 0.05, 200).decision == "kept back"


@pytest.mark.parametrize(
    ("before", "after", "longest"),
    [([1] * 5, [1] * 5, 1_000_000), ([0] * 199 + [1], [0] * 200, 32768)],
)
def test_answers_too_short_to_bound_any_growth_are_told_and_promote_nothing(before, after, longest):
    verdict = keeps_length(before, after, 0.05, longest)
    assert verdict.decision == "cannot decide"
    assert "no growth can be excluded" in verdict.why
    assert "inf" not in verdict.why


def test_the_bound_of_the_growth_holds_although_few_answers_run_away():
    # One answer in a hundred runs to the limit, which is the whole growth of 5 %: Student's interval
    # promotes in 10 % of such draws.
    random.seed(1)
    promoted = 0
    for _ in range(400):
        before = [random.lognormvariate(4.5, 0.3) for _ in range(200)]
        grown = (1.05 * 94.2 - 0.01 * 512) / 0.99 / 94.2
        after = [512.0 if random.random() < 0.01 else grown * length for length in before]
        promoted += growth_bound(before, after, 512) <= 0.05
    assert promoted / 400 <= 0.025


def test_the_worst_of_several_comparisons_decides_and_is_told_first():
    kept = keeps_accuracy([True] * 300, [True] * 270 + [False] * 30, 0.02)
    undecided = keeps_accuracy([True], [True], 0.02)
    promoted = keeps_accuracy([True] * 300, [True] * 300, 0.02)
    verdict = all_of([promoted, undecided, kept])
    assert verdict.decision == "kept back"
    assert verdict.why.split("; ")[0] == "it may lose more than 2 points of accuracy"
    assert all_of([promoted, undecided]).decision == "cannot decide"
    assert all_of([promoted, promoted]).promote
