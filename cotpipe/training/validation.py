"""Validation while a stage trains: which of its states is kept, and when it has learnt enough."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from cotpipe.recipe.trainers import Brevity, Validation
from cotpipe.training.messages import Validated

ANSWERS_AT_ONCE = 64
"""How many answers an SFT stage writes at a time; GRPO as many as completions."""


@dataclass
class Course:
    """The validations of a stage so far.

    The state that is kept is the most accurate one (the first of several); the state before training
    is one of them. It is chosen as training goes: a state that was passed over is not kept, so it is
    not looked at again. Of a stage that `shortens`, it is the one with the shortest answers among those
    that are at most one standard error of the paired difference less accurate than the most accurate
    one (the one-standard-error rule; Breiman et al. 1984, Classification and Regression Trees, section
    3.4.3), and no less accurate than the state before training.
    """

    settings: Validation
    brevity: Brevity | None = None
    shortens: bool = True
    """Whether brevity counts among states that are about as accurate (GRPO), or accuracy alone (SFT)."""
    ramp_end: int = 0
    """The first optimizer step at which accuracy can be said not to rise: masks have their last share."""
    validated: list[Validated] = field(default_factory=list)
    kept: int = 0  # position of the state that is kept
    pays_brevity: bool = False
    _last_progress: int = 0  # position of the validation that last was a step forward
    _last_rise: int = 0  # position of the last new best accuracy, or validation before `ramp_end`

    def add(self, validated: Validated) -> bool:
        """Take note of a validation; returns whether its state is now the one to keep."""
        before = self._best()
        self.validated.append(validated)
        position = len(self.validated) - 1
        if before is None:
            self.kept = position
        elif self._is_kept(position):
            self.kept = self._last_progress = position
        is_best = before is not None and validated.accuracy > before.accuracy
        if is_best or validated.step < self.ramp_end:
            self._last_progress = self._last_rise = position
        if self.brevity and not self.pays_brevity:
            enough = validated.accuracy >= self.brevity.min_accuracy
            if enough or position - self._last_rise >= self.settings.patience:
                self.pays_brevity, self._last_progress = True, position
        return self.kept == position

    @property
    def is_rising(self) -> bool:
        """Whether a validation of the last `patience` ones was a step forward."""
        return len(self.validated) - 1 - self._last_progress < self.settings.patience

    @property
    def is_over(self) -> bool:
        """Whether training should end here."""
        awaits_brevity = self.brevity is not None and not self.pays_brevity
        return self.settings.stops and not self.is_rising and not awaits_brevity

    def _best(self) -> Validated | None:
        return max(self.validated, key=lambda one: one.accuracy, default=None)

    def _is_kept(self, position: int) -> bool:
        """Whether the newest state replaces the one that is kept."""
        new, kept, best = self.validated[position], self.validated[self.kept], self._best()
        assert best
        if not self.shortens:
            return new.accuracy > kept.accuracy
        if not within_one_error(best.correct, new.correct):
            return False
        if new.accuracy < self.validated[0].accuracy:
            return False
        if not within_one_error(best.correct, kept.correct):
            return True
        return (new.tokens, -new.accuracy) < (kept.tokens, -kept.accuracy)


def within_one_error(best: Sequence[bool], other: Sequence[bool]) -> bool:
    """Whether `other` is at most one standard error less accurate than `best`, problem by problem.

    With b problems that only `best` solves and c that only `other` does, the standard error of b - c
    is sqrt(b + c) (McNemar 1947, Psychometrika 12).

    >>> within_one_error([True] * 9 + [False], [True] * 8 + [False] * 2)
    True
    >>> within_one_error([True] * 9 + [False], [True] * 5 + [False] * 5)
    False
    """
    only_best = sum(one and not two for one, two in zip(best, other, strict=True))
    only_other = sum(two and not one for one, two in zip(best, other, strict=True))
    lost = only_best - only_other
    return lost <= 0 or lost**2 <= only_best + only_other
