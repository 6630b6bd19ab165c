"""The rewards of the GRPO stages: the published ones (arXiv 2602.17686), and `correct-first`.

Each reward is a single function, because its ordering (wrong < correct but malformed < correct)
is lost when parts are normalized and summed separately. Only the completion is read, never the
prompt. The published ones read `Step k:` and `Answer:` wherever these stand, as the published code
does; the share with valid format that evaluations report, and `verdict` unless told otherwise, ask
for lines that begin with them. What is paid for brevity by comparison with the other completions of
a prompt is in `brevity`. Recipes can also name user functions (docs/extending.md).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from cotpipe.errors import UserError
from cotpipe.extensions import Registry, is_own, returned
from cotpipe.rationale.answers import NUMBER, AnswerKind
from cotpipe.rationale.format import (
    count_published_steps,
    has_published_format,
    has_valid_format,
)
from cotpipe.rationale.lengths import Length, count_words

WRONG = -2.0
MALFORMED = -1.0
RIGHT = 1.0
WORDS_PER_STEP = 35
"""Stage 2's length baseline: b = 35 n for a teacher's rationale of n steps."""


@dataclass(frozen=True)
class Target:
    """What a completion is scored against."""

    answer: str  # the gold answer
    teacher_steps: int  # number of steps in the teacher's rationale
    teacher_length: int  # its length, in the reward's unit
    answers: AnswerKind = NUMBER
    question: str = ""


@dataclass(frozen=True)
class RewardParts:
    """A reward and its parts; `reward` is the sum of `base`, `brevity_steps` and `length`."""

    reward: float
    correct: bool
    valid_format: bool
    base: float
    brevity_steps: float
    length: float

    @property
    def right(self) -> bool:
        """Whether the completion is correct and well-formed."""
        return self.correct and self.valid_format


Reward = Callable[[str, Target, Length], RewardParts]
"""Scores a completion against its target; the last argument measures length, in words or tokens."""

rewards: Registry[Reward] = Registry("reward", "published")
"""`published` is the reward that was published for the stage's task."""


def reward_named(name: str) -> Reward:
    """Resolve a reward by name; the results of user functions are validated on every call.

    Raises `UserError` for an unknown name or a file that cannot be loaded.
    """
    found = rewards.find(name)
    if not is_own(name):
        return found

    def checked(completion: str, target: Target, length: Length) -> RewardParts:
        parts = returned(name, found(completion, target, length), RewardParts)
        if not isinstance(parts.reward, int | float) or not math.isfinite(parts.reward):
            raise UserError(
                f"{name} returned the reward {parts.reward!r}, which is not a finite number"
            )
        return parts

    return checked


@rewards.register("recovery")
def recovery_reward(completion: str, target: Target, length: Length = count_words) -> RewardParts:
    r"""Stage 2: `1 + 0.3 min(max(n - s, 0), 3) + L(w)` for a correct, well-formed completion.

    The completion has w words and s steps, the teacher's rationale n = `target.teacher_steps`. With
    b = 35 n: L = max(-0.01 (w - b), -1) above b, -0.002 (w - 0.8 b) down to 0.8 b, and
    min(0.001 (0.8 b - w), 0.2) below. Wrong: -2; correct but malformed: -1.

    >>> target = Target("72", teacher_steps=3, teacher_length=40)
    >>> recovery_reward("Step 1: 48 / 2 = 24\nStep 2: 48 + 24 = 72\nAnswer: 72", target).reward
    1.368
    """
    base, correct, valid = verdict(completion, target, has_published_format)
    if base < RIGHT:
        return RewardParts(base, correct, valid, base, 0.0, 0.0)
    saved = 0.3 * min(max(target.teacher_steps - count_published_steps(completion), 0), 3)
    bonus = _length_bonus(length(completion), WORDS_PER_STEP * target.teacher_steps)
    total = round(base + saved + bonus, 6)
    return RewardParts(total, correct, valid, base, round(saved, 6), round(bonus, 6))


@rewards.register("rewrite")
def rewrite_reward(completion: str, target: Target, length: Length = count_words) -> RewardParts:
    """Stage 3: `1 + C(r)` for a correct, well-formed completion of r times the teacher's length.

    C = -0.5 min(r - 1, 1) above 1; 0 down to 0.8; 0.5 (0.8 - r) / 0.3 down to 0.5;
    0.5 + 0.3 min((0.5 - r) / 0.3, 1) below. Wrong: -2; correct but malformed: -1.
    """
    base, correct, valid = verdict(completion, target, has_published_format)
    if base < RIGHT:
        return RewardParts(base, correct, valid, base, 0.0, 0.0)
    bonus = _compression_bonus(length(completion) / max(target.teacher_length, 1))
    return RewardParts(round(base + bonus, 6), correct, valid, base, 0.0, round(bonus, 6))


@rewards.register("correct-first")
def correct_first_reward(
    completion: str, target: Target, length: Length = count_words
) -> RewardParts:
    r"""1 for a correct, well-formed completion, 0 for any other; nothing for its length or steps.

    Correctness is a noisy signal and brevity a clean one: paid together from the start, brevity is
    learnt first, at the cost of correctness. The recipe's `reward.brevity` adds it by `brevity`.

    >>> correct_first_reward("Step 1: 48 + 24 = 72\nAnswer: 72", Target("72", 3, 40)).reward
    1.0
    """
    base, correct, valid = verdict(completion, target)
    paid = 1.0 if base == RIGHT else 0.0
    return RewardParts(paid, correct, valid, paid, 0.0, 0.0)


def verdict(
    completion: str, target: Target, is_valid: Callable[[str], bool] = has_valid_format
) -> tuple[float, bool, bool]:
    """The base reward, whether the answer is correct, and whether the format is valid.

    `is_valid` tells the latter; by default, the lines of `format.has_valid_format` are needed.
    """
    correct = target.answers.grade(completion, target.answer, target.question).right
    valid = is_valid(completion)
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
