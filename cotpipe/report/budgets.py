"""Accuracy within a budget of tokens, and two checkpoints at equal length and at equal accuracy.

A budget of L tokens counts an answer as right if it is right and at most L tokens long: what a
greedy evaluation with `max_new_tokens: L` gives, but for an answer that is found in a text cut off in
the middle. Every problem counts at every budget. Bins of answers by length would compare the problems
that one checkpoint answers briefly with others that the other one does, so they are not used.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cotpipe.report.samples import resamples
from cotpipe.report.score import CONFIDENCE
from cotpipe.report.statistics import Change, Estimate, change_of_share, share

_Integers = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
_QUANTILES = (0.25, 0.5, 0.75, 0.9, 1.0)
_PARTS = (0.5, 0.75, 0.9, 1.0)


@dataclass(frozen=True)
class Graded:
    """A checkpoint's greedy answers, in the order of the problems."""

    correct: Sequence[bool]
    tokens: Sequence[int]

    def right_within(self, budget: int) -> list[bool]:
        """Whether each problem is answered right within a budget of tokens."""
        pairs = zip(self.correct, self.tokens, strict=True)
        return [right and length <= budget for right, length in pairs]


@dataclass(frozen=True)
class AtEqualLength:
    """The accuracy of two checkpoints within the same budget, on the same problems."""

    budget: int  # tokens
    first: Estimate
    second: Estimate
    change: Change  # from the second to the first


@dataclass(frozen=True)
class AtEqualAccuracy:
    """The budget that each checkpoint needs for the same number of right answers."""

    part: float  # of the accuracy that both reach, in (0, 1]
    accuracy: float  # the share of problems answered right within these budgets, at least
    first: int  # tokens
    second: int  # tokens
    change: Estimate  # first - second


def budgets_of(*checkpoints: Graded) -> list[int]:
    """Budgets at which to compare: 25, 50, 75, 90 and 100 % of all answers are within them.

    >>> budgets_of(Graded([True] * 4, [10, 20, 30, 40]))
    [10, 20, 30, 40]
    """
    lengths = sorted(length for one in checkpoints for length in one.tokens)
    return sorted({lengths[math.ceil(part * len(lengths)) - 1] for part in _QUANTILES})


def at_equal_length(first: Graded, second: Graded) -> list[AtEqualLength]:
    """Compare two checkpoints within the same budgets: paired, with Tango's interval."""
    compared = []
    for budget in budgets_of(first, second):
        ours, theirs = first.right_within(budget), second.right_within(budget)
        compared.append(
            AtEqualLength(budget, share(ours), share(theirs), change_of_share(theirs, ours))
        )
    return compared


def at_equal_accuracy(first: Graded, second: Graded) -> list[AtEqualAccuracy]:
    """Compare the budgets that two checkpoints need for the same accuracy.

    The accuracies are 50, 75, 90 and 100 % of the lower one of the two. The intervals are those of a
    paired bootstrap over the problems, in which each resample has accuracies of its own; resamples in
    which a checkpoint has nothing right are left out. Empty if a checkpoint has nothing right.
    """
    num_problems = len(first.tokens)
    pair = _Curve(first), _Curve(second)
    if not all(one.lengths.size for one in pair):
        return []
    needed, ours, theirs = _needed(pair, np.ones((1, num_problems), dtype=int))
    drawn = [
        (ours - theirs)[needed[:, 0] > 0]
        for weights in resamples(num_problems)
        for needed, ours, theirs in [_needed(pair, weights)]
    ]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(drawn), [tail, 1 - tail], axis=0)
    return [
        AtEqualAccuracy(
            part=part,
            accuracy=float(needed[0, place] / num_problems),
            first=int(ours[0, place]),
            second=int(theirs[0, place]),
            change=Estimate(
                float(ours[0, place] - theirs[0, place]), float(low[place]), float(high[place])
            ),
        )
        for place, part in enumerate(_PARTS)
    ]


class _Curve:
    """The right answers of a checkpoint from the shortest to the longest."""

    def __init__(self, graded: Graded) -> None:
        lengths, correct = np.asarray(graded.tokens), np.asarray(graded.correct)
        self._places = np.flatnonzero(correct)[np.argsort(lengths[correct], kind="stable")]
        self.lengths = lengths[self._places]

    def counted(self, weights: _Integers) -> _Integers:
        """The number of right answers up to each; shape (resamples, right answers)."""
        counted: _Integers = np.cumsum(weights[:, self._places], axis=1)
        return counted

    def budgets(self, counted: _Integers, needed: _Integers) -> _Integers:
        """The smallest budgets with as many right answers as `needed`, of the same shape."""
        before = [(counted < column[:, None]).sum(axis=1) for column in needed.T]
        found: _Integers = self.lengths[np.stack(before, axis=1)]
        return found


def _needed(
    pair: tuple[_Curve, _Curve], weights: _Integers
) -> tuple[_Integers, _Integers, _Integers]:
    """Numbers of right answers, and the budgets that both checkpoints need for them.

    Args:
        pair: Both checkpoints.
        weights: How often each problem counts; shape (resamples, problems).

    Returns:
        Three arrays of the shape (resamples, parts).
    """
    first, second = (one.counted(weights) for one in pair)
    least = np.minimum(first[:, -1], second[:, -1])
    needed = np.ceil(least[:, None] * np.array(_PARTS)).astype(int)
    return needed, pair[0].budgets(first, needed), pair[1].budgets(second, needed)
