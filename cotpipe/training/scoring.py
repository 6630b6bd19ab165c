"""Scoring the completions of a prompt: the stage's reward, and brevity within the group."""

import math
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from cotpipe.data.rows import Example
from cotpipe.errors import UserError
from cotpipe.rationale.answers import AnswerKind, answer_kind
from cotpipe.rationale.brevity import pay_brevity
from cotpipe.rationale.format import format_rationale, has_valid_format
from cotpipe.rationale.lengths import length_in
from cotpipe.rationale.prompts import question_of
from cotpipe.rationale.rewards import RewardParts, Target, reward_named
from cotpipe.recipe.trainers import Grpo
from cotpipe.training.job import Job


class Scorer:
    """Rewards groups of completions."""

    def __init__(self, job: Job, trainer: Grpo, tokenizer: PreTrainedTokenizerBase) -> None:
        self._named = job.stage.reward_name(trainer)
        self._reward = reward_named(self._named)
        self._length = length_in(trainer.reward.length_unit, tokenizer)
        self._answers = answer_kind(job.answers)
        self._brevity = trainer.reward.brevity

    def group(
        self, texts: Sequence[str], num_tokens: Sequence[int], example: Example, brevity: bool
    ) -> list[RewardParts]:
        """The rewards of all completions of one prompt.

        Args:
            texts: The completions.
            num_tokens: Their lengths, in the student's tokens.
            example: The row that was shown.
            brevity: Whether the recipe's brevity is paid.

        Raises `UserError` if a reward is not finite.
        """
        teacher_length = self._length(format_rationale(example.teacher_steps, example.answer))
        target = Target(
            example.answer,
            len(example.teacher_steps),
            teacher_length,
            self._answers,
            question_of(example.prompt),
        )
        parts = [self._reward(text, target, self._length) for text in texts]
        for part in parts:
            if not math.isfinite(part.reward):
                raise UserError(
                    f"the reward {self._named} is {part.reward} for a completion of problem "
                    f"{example.problem_id}, which is not a finite number; correct it"
                )
        if not brevity or self._brevity is None:
            return parts
        return pay_brevity(parts, num_tokens, self._brevity.weight, self._brevity.min_pass_rate)


def is_right(text: str, example: Example, answers: AnswerKind) -> bool:
    """Whether a completion has the right answer, in the form of a rationale."""
    graded = answers.grade(text, example.answer, question_of(example.prompt))
    return graded.right and has_valid_format(text)
