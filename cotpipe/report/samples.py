"""What several samples per problem are worth: pass@k, majority votes, and bootstrap intervals."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from cotpipe.randomness import named_seed
from cotpipe.report.score import CONFIDENCE
from cotpipe.report.statistics import Estimate

_RESAMPLES = 9999
_AT_ONCE = 200  # resamples at a time, which bounds the memory


@dataclass(frozen=True)
class Votes:
    """The final answers of a problem's samples, counted: equal ones are one answer."""

    right: int
    wrong: tuple[int, ...] = ()  # samples per wrong answer
    silent: int = 0  # samples without an answer

    @property
    def total(self) -> int:
        """The number of samples."""
        return self.right + sum(self.wrong) + self.silent


def count_votes(
    samples: Sequence[tuple[str | None, bool]], same: Callable[[str, str], bool]
) -> Votes:
    """Count the votes for each answer of a problem.

    Args:
        samples: Of each sample the final answer (None: there is none), and whether it is right.
        same: Whether two wrong answers are equal.

    >>> count_votes([("4", True), ("5", False), (None, False), ("5", False)], str.__eq__)
    Votes(right=1, wrong=(2,), silent=1)
    """
    counted: dict[str, int] = {}
    group_of: dict[str, str] = {}
    for answer, right in samples:
        if answer is None or right:
            continue
        if answer not in group_of:
            group_of[answer] = next((one for one in counted if same(answer, one)), answer)
        counted[group_of[answer]] = counted.get(group_of[answer], 0) + 1
    rights = sum(right for _, right in samples)
    silent = sum(answer is None and not right for answer, right in samples)
    return Votes(rights, tuple(counted.values()), silent)


def pass_at(k: int, votes: Votes) -> float:
    """The probability that at least one of k samples is right: pass@k of one problem.

    Unbiased from n samples, c of them right: 1 - C(n - c, k) / C(n, k), the share of the subsets of
    size k with a right one (Chen et al. 2021, arXiv 2107.03374, section 2.1). `k` is in [1, n].

    >>> pass_at(1, Votes(right=1, wrong=(3,))), pass_at(2, Votes(right=1, wrong=(3,)))
    (0.25, 0.5)
    """
    n = votes.total
    assert 1 <= k <= n, "pass@k needs at least k samples"
    return 1 - comb(n - votes.right, k) / comb(n, k)


def majority_at(ks: Sequence[int], votes: Votes) -> list[float]:
    """The probability that the majority vote of k samples is right: maj@k of one problem.

    The most frequent final answer of k samples is taken (self-consistency, Wang et al. 2022, arXiv
    2203.11171); ties are broken at random, and a sample without an answer has no vote. Computed exactly
    over all subsets of size k of the n samples, without sampling any, so it is unbiased as pass@k is:
    a U-statistic. maj@1 is pass@1.

    Args:
        ks: Sizes of the vote, each in [1, n].
        votes: The votes of the problem.

    >>> majority_at([1, 3], Votes(right=2, wrong=(1,)))
    [0.6666666666666666, 1.0]
    >>> majority_at([2], Votes(right=1, wrong=(1,)))
    [0.5]
    """
    largest, n = max(ks), votes.total
    assert min(ks) >= 1, "a vote needs a sample"
    assert largest <= n, "maj@k needs at least k samples"
    won = np.zeros(largest + 1)  # number of subsets of each size in which the right answer wins
    for own in range(1, min(votes.right, largest) + 1):
        others = _ways(votes, own, largest - own)
        won[own:] += comb(votes.right, own) * (others @ (1 / np.arange(1, others.shape[1] + 1)))
    return [float(won[k] / comb(n, k)) for k in ks]


def _ways(votes: Votes, own: int, room: int) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """How many subsets of the samples that are not right give no answer more than `own` votes.

    Returns:
        Shape (room + 1, room // own + 1): by size of the subset, and number of answers with
        exactly `own` votes.
    """
    ways = np.zeros((room + 1, room // own + 1))
    ways[0, 0] = 1
    for size in votes.wrong:
        grown = ways.copy()
        for taken in range(1, min(size, own, room) + 1):
            added = comb(size, taken) * ways[: room + 1 - taken]
            if taken < own:
                grown[taken:] += added
            else:
                grown[taken:, 1:] += added[:, :-1]
        ways = grown
    silent = [float(comb(votes.silent, taken)) for taken in range(room + 1)]
    return np.stack([np.convolve(column, silent)[: room + 1] for column in ways.T], axis=1)


def bootstrap_means(values: Sequence[Sequence[float]]) -> list[Estimate]:
    """The mean of each column over the problems, with a 95 % percentile interval.

    The problems are resampled (always the same resamples), each with its whole row: what is left to
    chance is which problems are asked (Efron and Tibshirani 1993, section 13.3).

    Args:
        values: A row per problem, with the same columns each.
    """
    array = np.asarray(values, dtype=float)
    means = [weights @ array / len(array) for weights in resamples(len(array))]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail], axis=0)
    return [
        Estimate(float(mean), float(least), float(most))
        for mean, least, most in zip(array.mean(axis=0), low, high, strict=True)
    ]


def resamples(num_problems: int) -> Iterator["np.ndarray[tuple[int, int], np.dtype[np.int64]]"]:
    """9999 bootstrap resamples of the problems, always the same ones, in batches.

    Yields how often each problem is in them; shape (resamples of the batch, problems).
    """
    rng = np.random.default_rng(named_seed("bootstrap over problems"))
    even = [1 / num_problems] * num_problems
    for start in range(0, _RESAMPLES, _AT_ONCE):
        yield rng.multinomial(num_problems, even, size=min(_AT_ONCE, _RESAMPLES - start))
