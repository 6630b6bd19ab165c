"""Brevity within a group: what right completions lose for being longer than the shortest right one."""

from collections.abc import Sequence
from dataclasses import replace

from cotpipe.rationale.rewards import RewardParts


def pay_brevity(
    group: Sequence[RewardParts], lengths: Sequence[int], weight: float, min_pass_rate: float
) -> list[RewardParts]:
    """The rewards of a group's completions, less what the right and well-formed ones lose for length.

    A completion of l tokens loses `weight * min((l - s) / s, 1)`, where s is the length of the
    shortest right one. Wrong and malformed completions lose nothing, and with a base reward of 1 for
    right and 0 for wrong ones none of them ever outranks a right one. Where fewer than
    `min_pass_rate` of the group are right, nothing is paid for brevity: hard problems keep their
    length, as in GRPO-lambda (arXiv 2505.18086, section 3.2); comparing right completions alone is
    Kimi k1.5's (arXiv 2501.12599, section 2.3.3).

    Args:
        group: The rewards of all completions of one prompt.
        lengths: Their lengths, in the student's tokens.
        weight: The most that a completion can lose, in [0, 0.5].
        min_pass_rate: The share of the group, in [0, 1], that must be right.

    >>> right, wrong = RewardParts(1, True, True, 1, 0, 0), RewardParts(0, False, True, 0, 0, 0)
    >>> paid = pay_brevity([right, right, wrong, right], [40, 60, 9, 100], 0.2, 0.75)
    >>> [part.reward for part in paid]
    [1.0, 0.9, 0, 0.8]
    """
    right = [part.right for part in group]
    if not any(right) or sum(right) < min_pass_rate * len(group):
        return list(group)
    shortest = min(length for length, is_right in zip(lengths, right, strict=True) if is_right)
    return [
        _lose(part, weight * _excess(length, shortest)) if is_right else part
        for part, length, is_right in zip(group, lengths, right, strict=True)
    ]


def _excess(length: int, shortest: int) -> float:
    return min((length - shortest) / max(shortest, 1), 1.0)


def _lose(part: RewardParts, loss: float) -> RewardParts:
    return replace(part, reward=round(part.reward - loss, 6), length=round(part.length - loss, 6))
