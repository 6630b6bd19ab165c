"""Comparing arms over seeds and problems together: effects, their intervals, and verdicts in words."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cotpipe.report.score import CONFIDENCE
from cotpipe.report.statistics import Estimate, holm, mean, share

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    Floats = np.ndarray[tuple[int], np.dtype[np.float64]]

_POWER = 0.8
_ROUNDING = 1e-12
"""Less of a deviation, relative to the values, is rounding."""


@dataclass(frozen=True)
class Effect:
    """A mean difference between two arms, over seeds and problems."""

    value: float
    low: float  # 95 % interval
    high: float
    p_value: float  # of no difference
    detectable: float | None  # the smallest true difference that 4 of 5 such comparisons would find

    @property
    def beyond_noise(self) -> bool:
        """Whether the difference is significant at the 5 % level."""
        return self.p_value < 1 - CONFIDENCE


@dataclass(frozen=True)
class ArmScore:
    """What the last checkpoint of an arm reaches, over all its seeds."""

    arm: str
    num_seeds: int
    accuracy: Estimate  # share in [0, 1]
    tokens: Estimate  # mean output length (tokens of the student)


@dataclass(frozen=True)
class Contrast:
    """An arm against the baseline, on the seeds that both have finished."""

    arm: str
    baseline: str
    num_seeds: int
    num_answers: int  # of each of the two
    accuracy: Effect  # difference of shares, in [-1, 1]
    tokens: Effect  # relative difference of the mean lengths; -0.2: a fifth less

    @property
    def verdict(self) -> str:
        """What the comparison shows, in words; with a single seed it shows nothing of the method."""
        if self.num_seeds < 2:
            return (
                "no verdict: one seed tells nothing about other seeds; add at least one more "
                "(three or more tell much more)"
            )
        found = []
        if self.accuracy.beyond_noise:
            verb = "adds" if self.accuracy.value > 0 else "loses"
            found.append(f"{verb} {100 * abs(self.accuracy.value):.1f} points of accuracy")
        if self.tokens.beyond_noise:
            verb = "saves" if self.tokens.value < 0 else "writes"
            more = "" if self.tokens.value < 0 else " more"
            found.append(f"{verb} {100 * abs(self.tokens.value):.1f} %{more} tokens")
        if found:
            return f"{' and '.join(found)}, beyond noise{self._left_open}"
        answers = f"{self.num_answers:,} answers over {self.num_seeds} seeds"
        points, length = self.accuracy.detectable, self.tokens.detectable
        sizes = [f"{100 * points:.1f} points"] if points and points <= 1 else []
        sizes += [f"{100 * length:.1f} % of the tokens"] if length else []
        if not sizes:
            return f"no difference shown, and {answers} could have shown none: add seeds"
        return (
            f"no difference shown; in {answers}, one of {' or '.join(sizes)} would probably have "
            "been found"
        )

    @property
    def _left_open(self) -> str:
        """Of tokens beyond noise, what is not known of the accuracy."""
        points = self.accuracy.detectable
        if self.accuracy.beyond_noise or not points or points > 1:
            return ""
        return (
            f"; no difference in accuracy shown ({100 * self.accuracy.value:+.1f} points), and one "
            f"below {100 * points:.1f} points could well have been missed"
        )


def score_arm(arm: str, answers: "pd.DataFrame") -> ArmScore:
    """Score one arm.

    Args:
        arm: Its name.
        answers: One row per seed and problem, with `seed`, `problem_id`, `question`, `correct`,
            `num_tokens`. Problems of two seeds are the same where their questions are.
    """
    if answers["seed"].nunique() == 1:
        return ArmScore(
            arm, 1, share(answers["correct"].tolist()), mean(answers["num_tokens"].tolist())
        )
    right, length = (
        _effect(answers[column].to_numpy(dtype=float), answers)
        for column in ("correct", "num_tokens")
    )
    if right.value in (0.0, 1.0):  # all alike: Wilson's interval still says how many they are
        accuracy = share(answers["correct"].tolist())
    else:
        accuracy = Estimate(right.value, max(right.low, 0.0), min(right.high, 1.0))
    tokens = Estimate(length.value, max(length.low, 0.0), length.high)
    return ArmScore(arm, answers["seed"].nunique(), accuracy, tokens)


def contrasts(baseline: str, arms: "Mapping[str, pd.DataFrame]") -> list[Contrast]:
    """Every arm against the baseline; p-values are corrected for the number of arms (Holm).

    Accuracy and tokens are two questions, each with its own correction; arms with a single common
    seed get no verdict and do not count.

    Args:
        baseline: Name of the arm that the others are compared with.
        arms: The answers of each arm that has any, as for `score_arm`.

    Raises `AssertionError` if two arms answered different problems with the same seed.
    """
    if baseline not in arms:
        return []
    seeds = {arm: set(answers["seed"]) for arm, answers in arms.items()}
    others = [arm for arm in arms if arm != baseline and seeds[arm] & seeds[baseline]]
    num_tests = max(sum(len(seeds[arm] & seeds[baseline]) > 1 for arm in others), 1)
    found = [_contrast(arm, baseline, arms[arm], arms[baseline], num_tests) for arm in others]
    counted = [one for one in found if one.num_seeds > 1]
    corrected = {
        one.arm: pair
        for one, *pair in zip(
            counted,
            holm([one.accuracy.p_value for one in counted]),
            holm([one.tokens.p_value for one in counted]),
            strict=True,
        )
    }
    return [
        replace(
            one,
            accuracy=replace(one.accuracy, p_value=corrected[one.arm][0]),
            tokens=replace(one.tokens, p_value=corrected[one.arm][1]),
        )
        if one.arm in corrected
        else one
        for one in found
    ]


def _contrast(
    arm: str, baseline: str, answers: "pd.DataFrame", others: "pd.DataFrame", num_tests: int
) -> Contrast:
    """The arm against the baseline, on their common seeds; `num_tests` is for `_effect`."""
    keys = ["seed", "problem_id"]
    common = set(answers["seed"]) & set(others["seed"])
    mine, theirs = (
        frame[frame["seed"].isin(common)].sort_values(keys, ignore_index=True)
        for frame in (answers, others)
    )
    assert mine[keys].equals(theirs[keys]), f"{arm} and {baseline} answered different problems"
    correct = mine["correct"].to_numpy(dtype=float) - theirs["correct"].to_numpy(dtype=float)
    lengths, baseline_lengths = (
        frame["num_tokens"].to_numpy(dtype=float) for frame in (mine, theirs)
    )
    typical = max(baseline_lengths.mean(), 1.0)  # tokens; an answer may be empty
    ratio = lengths.mean() / typical
    # The ratio of two means, linearised (delta method): its deviation is that of this mean.
    relative = (lengths - ratio * baseline_lengths) / typical + ratio - 1
    effects = (_effect(values, mine, num_tests) for values in (correct, relative))
    return Contrast(arm, baseline, len(common), len(mine), *effects)


def _effect(values: "Floats", rows: "pd.DataFrame", num_tests: int = 1) -> Effect:
    """The mean of values, each of a seed and a problem, with an interval that allows for both.

    Answers of one seed share its training, answers to one problem its difficulty. The variance is
    that of two-way clusters, by seed plus by problem minus by both (Cameron, Gelbach and Miller
    2011, Journal of Business & Economic Statistics 29, equation 2.13), and no less than that of
    seeds alone or of problems alone: two seeds whose means agree by chance do not make the noise of
    their answers vanish. t quantiles with one degree of freedom less than there are seeds. If each
    seed has problems of its own and the seeds differ by more than their answers' noise, this is
    Student's interval over the seeds' means. Of a single seed, only the problems count: nothing is
    said about other seeds.

    Args:
        values: One value per row.
        rows: The seed and problem of each.
        num_tests: For how many tests p-values will be corrected: `detectable` allows for it.
    """
    from scipy import stats

    centred = values - values.mean()
    by_seed = _cluster_variance(centred, rows["seed"])
    by_problem = _cluster_variance(centred, rows["question"])
    by_both = _cluster_variance(centred, np.arange(len(values)))
    num_seeds = rows["seed"].nunique()
    if num_seeds == 1:
        variance, freedom = by_both, len(values) - 1
    else:
        variance = max(by_seed, by_problem, by_seed + by_problem - by_both)
        freedom = num_seeds - 1
    error = math.sqrt(variance)
    value = float(values.mean())
    rounding = float(np.abs(values).max()) * _ROUNDING
    if error <= rounding or not freedom:  # nothing varies: nothing is known of how much it would
        return Effect(value, value, value, 1.0, None)
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))
    return Effect(
        value,
        value - quantile * error,
        value + quantile * error,
        float(2 * stats.t.sf(abs(value) / error, freedom)),
        float(stats.t.isf((1 - CONFIDENCE) / 2 / num_tests, freedom) + stats.t.ppf(_POWER, freedom))
        * error,
    )


def _cluster_variance(centred: "Floats", clusters: "npt.ArrayLike") -> float:
    """The variance of the mean if values of a cluster depend on each other."""
    _, codes = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(codes, weights=centred)
    if len(sums) < 2:
        return 0.0
    return float((sums**2).sum() / len(centred) ** 2 * len(sums) / (len(sums) - 1))
