"""The rewards of the two GRPO stages, as published (arXiv 2602.17686; METHOD, stages 2 and 3).

One function gives the whole reward, because its hierarchy (wrong < right but malformed < right) is lost when parts
are normalised and summed apart. Only the completion is read, never the prompt.
"""

from dataclasses import dataclass
from enum import StrEnum

from cotpipe.answers import answers_match, extract_answer
from cotpipe.lengths import Length, count_words
from cotpipe.rationale import count_steps, has_valid_format

WRONG = -2.0
MALFORMED = -1.0
RIGHT = 1.0
WORDS_PER_STEP = 35
"""Stage 2's length baseline: b = 35 n for a teacher's rationale of n steps."""


class RewardName(StrEnum):
    """The reward of a stage: `recovery` in stage 2, `rewrite` in stage 3."""

    RECOVERY = "recovery"
    REWRITE = "rewrite"


@dataclass(frozen=True)
class RewardParts:
    """A reward and what it is made of; `reward` is the sum of `base`, `brevity_steps` and `length`."""

    reward: float
    correct: bool
    valid_format: bool
    base: float
    brevity_steps: float
    length: float


def recovery_reward(completion: str, answer: str, teacher_steps: int, length: Length = count_words) -> RewardParts:
    r"""Stage 2: `1 + 0.3 min(max(n - s, 0), 3) + L(w)` for a right, well-formed completion of w words and s steps.

    With b = 35 n for a teacher's rationale of n = `teacher_steps` steps: L = max(-0.01 (w - b), -1) above b,
    -0.002 (w - 0.8 b) down to 0.8 b, and min(0.001 (0.8 b - w), 0.2) below. Wrong: -2; right but malformed: -1.

    >>> recovery_reward("Step 1: 48 / 2 = 24\nStep 2: 48 + 24 = 72\nAnswer: 72", "72", teacher_steps=3).reward
    1.368
    """
    base, correct, valid = _verdict(completion, answer)
    if base < RIGHT:
        return RewardParts(base, correct, valid, base, 0.0, 0.0)
    saved = 0.3 * min(max(teacher_steps - count_steps(completion), 0), 3)
    bonus = _length_bonus(length(completion), WORDS_PER_STEP * teacher_steps)
    return RewardParts(round(base + saved + bonus, 6), correct, valid, base, round(saved, 6), round(bonus, 6))


def rewrite_reward(completion: str, answer: str, teacher_length: int, length: Length = count_words) -> RewardParts:
    """Stage 3: `1 + C(r)` for a right, well-formed completion, r its length over the teacher's rationale's.

    C = -0.5 min(r - 1, 1) above 1; 0 down to 0.8; 0.5 (0.8 - r) / 0.3 down to 0.5; 0.5 + 0.3 min((0.5 - r) / 0.3, 1)
    below. Wrong: -2; right but malformed: -1. `teacher_length` is in the unit of `length`.
    """
    base, correct, valid = _verdict(completion, answer)
    if base < RIGHT:
        return RewardParts(base, correct, valid, base, 0.0, 0.0)
    bonus = _compression_bonus(length(completion) / max(teacher_length, 1))
    return RewardParts(round(base + bonus, 6), correct, valid, base, 0.0, round(bonus, 6))


def _verdict(completion: str, answer: str) -> tuple[float, bool, bool]:
    correct = answers_match(extract_answer(completion), answer)
    valid = has_valid_format(completion)
    return (WRONG if not correct else RIGHT if valid else MALFORMED), correct, valid


def _length_bonus(words: int, baseline: float) -> float:
    if words > baseline:
        return max(-0.01 * (words - baseline), -1.0)
    if words > 0.8 * baseline:
        return -0.002 * (words - 0.8 * baseline)
    return min(0.001 * (0.8 * baseline - words), 0.2)


def _compression_bonus(ratio: float) -> float:
    if ratio > 1:
        return -0.5 * min(ratio - 1, 1)
    if ratio > 0.8:
        return 0.0
    if ratio > 0.5:
        return 0.5 * (0.8 - ratio) / 0.3
    return 0.5 + 0.3 * min((0.5 - ratio) / 0.3, 1)
