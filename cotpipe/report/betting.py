"""A bound of how much longer answers have become that holds whatever their distribution is."""

from collections.abc import Sequence

import numpy as np

ERROR = 0.025
"""The probability that the true growth is above the bound."""
_BETS = 2.0 ** -np.arange(8)  # shares of the largest bet that cannot lose more than everything
_WEIGHTS = _BETS / _BETS.sum()
_LARGEST_GROWTH = 1e6


def growth_bound(before: Sequence[float], after: Sequence[float], most: float) -> float:
    """An upper 97.5 % bound of mean(after) / mean(before) - 1, from pairs.

    The bound by betting (Waudby-Smith and Ramdas 2024, JRSS-B 86), with a few constant bets mixed:
    if the true growth were g, the capital mean_k prod_i (1 - b_k (after_i - (1 + g) before_i)) would
    have an expectation of at most 1, so it reaches 40 with a probability of at most 1/40 (Markov).
    An interval from the deviation of the differences (Student) does not hold its level here: it knows
    nothing of answers that run away once in a hundred problems, until it has seen one.

    Args:
        before: Lengths of at least one answer, in tokens; some are positive.
        after: Lengths of the answers to the same problems, in tokens.
        most: The length limit of an answer, in tokens.

    Returns:
        The bound; infinite if the answers before are so few or short that they exclude no growth.
    """
    from scipy.optimize import brentq

    first, second = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    most = max(most, float(second.max()))

    def missing(growth: float) -> float:
        """How much the logarithm of the capital lacks."""
        return float(-np.log(ERROR) - _capital(second - (1 + growth) * first, most))

    if missing(_LARGEST_GROWTH) > 0:
        return float("inf")
    # A growth of -1 cannot be refuted: nothing is shorter than empty.
    return float(brentq(missing, -1.0, _LARGEST_GROWTH))


def least_problems(mean: float, most: float, growth: float) -> int:
    """The least number of problems at which equal answers show a growth of at most `growth`.

    Args:
        mean: The mean length of an answer, in tokens.
        most: The length limit of an answer, in tokens.
        growth: The growth to exclude, above 0.
    """
    from scipy.optimize import brentq

    gain = np.log1p(_BETS * growth * mean / most)

    def missing(problems: float) -> float:
        return float(-np.log(ERROR) - np.logaddexp.reduce(np.log(_WEIGHTS) + problems * gain))

    # With the smallest bet alone, this many would do.
    enough = -np.log(ERROR * _WEIGHTS[-1]) / gain[-1]
    return int(np.ceil(brentq(missing, 0, enough)))


def _capital(lost: "np.ndarray[tuple[int], np.dtype[np.float64]]", most: float) -> float:
    """The logarithm of the capital after bets against each of the differences."""
    with np.errstate(divide="ignore"):  # the largest bet may lose everything
        each = np.log1p(-np.outer(_BETS / most, lost)).sum(axis=1)
    return float(np.logaddexp.reduce(np.log(_WEIGHTS) + each))
