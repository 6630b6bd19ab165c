"""Tango's score interval for the difference of paired proportions."""

import math
from statistics import NormalDist

CONFIDENCE = 0.95
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
_EDGE = 1e-12  # the statistic is not defined at a difference of -1 and 1


def score_interval(gained: int, lost: int, pairs: int) -> tuple[float, float]:
    """The 95 % score interval for the change of a share (Tango 1998, Statistics in Medicine 17).

    It holds its level where few or no pairs differ; there, Wald's interval has no width.

    Args:
        gained: Number of pairs with a hit after, and none before.
        lost: Number of pairs with a hit before, and none after.
        pairs: Number of pairs.

    Returns:
        The bounds of (gained - lost) / pairs, in [-1, 1].
    """
    from scipy.optimize import brentq

    change = (gained - lost) / pairs

    def beyond(bound: float, deviations: float) -> float:
        return _deviations(bound, gained, lost, pairs) - deviations

    low = brentq(beyond, -1 + _EDGE, change, args=(Z,)) if change > -1 else -1.0
    high = brentq(beyond, change, 1 - _EDGE, args=(-Z,)) if change < 1 else 1.0
    return float(low), float(high)


def least_pairs(margin: float) -> int:
    """The least number of pairs at which the interval of equal pairs lies within ± `margin`.

    With no pair that differs, the bounds are ± z² / (n + z²).
    """
    return math.ceil(Z**2 * (1 - margin) / margin)


def _deviations(change: float, gained: int, lost: int, pairs: int) -> float:
    """Standard deviations from a supposed change to what is observed.

    The share of losses is its maximum likelihood estimate under the supposed change.
    """
    linear = -(gained + lost) + (2 * pairs - gained + lost) * change
    constant = -lost * change * (1 - change)
    root = math.sqrt(max(linear**2 - 8 * pairs * constant, 0.0))
    losses = (root - linear) / (4 * pairs)
    variance = pairs * (2 * losses + change * (1 - change))
    distance = gained - lost - pairs * change
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)
