"""Confidence intervals, and paired comparisons of two checkpoints."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cotpipe.randomness import named_seed
from cotpipe.report.score import CONFIDENCE, score_interval

_RESAMPLES = 9999
_BATCH = 1000  # resamples at a time, which bounds the memory


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
    from scipy import stats

    test = stats.binomtest(sum(hits), len(hits))
    interval = test.proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(sum(hits) / len(hits), interval.low, interval.high)


def mean(values: Sequence[float]) -> Estimate:
    """The mean, with Student's t interval (of zero width for a single value)."""
    array = np.asarray(values, dtype=float)
    low, high = _interval(array)
    return Estimate(float(array.mean()), low, high)


def change_of_share(before: Sequence[bool], after: Sequence[bool]) -> Change:
    """The paired change of a share, with Tango's interval; p-value of McNemar's exact test."""
    from scipy import stats

    differences = _differences(before, after)
    gained, lost = int((differences > 0).sum()), int((differences < 0).sum())
    p_value = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    low, high = score_interval(gained, lost, len(differences))
    return Change(float(differences.mean()), low, high, float(p_value))


def change_of_mean(before: Sequence[float], after: Sequence[float]) -> Change:
    """The paired change of a mean, with Student's interval; p-value of a sign-flip test of the mean.

    If nothing changed, each difference could as well have the other sign; the p-value is the share of
    random signs (always the same ones) with a mean at least as far from 0.
    """
    from scipy import stats

    differences = _differences(before, after)
    changed = differences[differences != 0]
    p_value = 1.0  # also of a single difference: with the other sign it is as far from 0
    if len(changed) > 1:
        p_value = stats.permutation_test(
            (changed,),
            np.mean,
            permutation_type="samples",
            n_resamples=_RESAMPLES,
            batch=_BATCH,
            rng=np.random.default_rng(named_seed("sign-flip test")),
        ).pvalue
    return Change(float(differences.mean()), *_interval(differences), float(p_value))


def median_change(before: Sequence[float], after: Sequence[float]) -> float:
    """The median of the paired differences (after - before)."""
    return float(np.median(_differences(before, after)))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number (Holm 1979, Scandinavian Journal of Statistics 6).

    Calling those below 5 % significant errs in any of them with a probability of at most 5 %.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    for rank, index in enumerate(order):
        largest = max(largest, min((len(p_values) - rank) * p_values[index], 1.0))
        corrected[index] = largest
    return corrected


def _differences(
    before: Sequence[float], after: Sequence[float]
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    difference: np.ndarray[tuple[int], np.dtype[np.float64]] = np.subtract(
        after, before, dtype=float
    )
    return difference


def _interval(values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> tuple[float, float]:
    from scipy import stats

    centre = float(values.mean())
    error = float(stats.sem(values)) if len(values) > 1 else 0.0
    if not error:
        return centre, centre
    low, high = stats.t.interval(CONFIDENCE, len(values) - 1, loc=centre, scale=error)
    return float(low), float(high)
