"""Confidence intervals, and paired comparisons of two checkpoints."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Change:
    """Mean paired difference (after - before), 95 % interval, and p-value of no change."""

    value: float
    low: float
    high: float
    p_value: float

    @property
    def beyond_noise(self) -> bool:
        """Whether the change is significant at the 5 % level."""
        return self.p_value < 1 - CONFIDENCE


def share(hits: Sequence[bool]) -> Estimate:
    """The share of hits in [0, 1], with the Wilson interval."""
    test = stats.binomtest(sum(hits), len(hits))
    interval = test.proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(sum(hits) / len(hits), interval.low, interval.high)


def mean(values: Sequence[float]) -> Estimate:
    """The mean, with Student's t interval (of zero width for a single value)."""
    array = np.asarray(values, dtype=float)
    low, high = _interval(array)
    return Estimate(float(array.mean()), low, high)


def change_of_share(before: Sequence[bool], after: Sequence[bool]) -> Change:
    """The paired change of a share; p-value of McNemar's exact test."""
    differences = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    gained, lost = int((differences > 0).sum()), int((differences < 0).sum())
    p_value = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    return Change(float(differences.mean()), *_interval(differences), float(p_value))


def change_of_mean(before: Sequence[float], after: Sequence[float]) -> Change:
    """The paired change of a mean; p-value of Wilcoxon's signed-rank test."""
    differences = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    p_value = stats.wilcoxon(differences).pvalue if differences.any() else 1.0
    return Change(float(differences.mean()), *_interval(differences), float(p_value))


def _interval(values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> tuple[float, float]:
    centre = float(values.mean())
    error = float(stats.sem(values)) if len(values) > 1 else 0.0
    if not error:
        return centre, centre
    low, high = stats.t.interval(CONFIDENCE, len(values) - 1, loc=centre, scale=error)
    return float(low), float(high)
