"""A stage of the curriculum: where it starts, what it trains on, and how."""

import math
import re
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from cotpipe.recipe.choices import as_choices
from cotpipe.recipe.examples import Completion, OwnAnswers, Reconstruction, Rewriting
from cotpipe.recipe.trainers import Grpo, Sft
from cotpipe.section import Section


class Stage(Section):
    """One stage of the curriculum; its checkpoint is named after it."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$",
        max_length=32,
        description="Name of the stage and of its checkpoint",
    )
    start: str | None = Field(
        None,
        description="Initial checkpoint: `student` or an earlier stage; default: the stage before",
    )
    examples: Annotated[
        Reconstruction | Completion | Rewriting | OwnAnswers, Field(discriminator="task")
    ] = Field(description="What it trains on", json_schema_extra=as_choices)
    trainer: Annotated[Sft | Grpo, Field(discriminator="kind")] = Field(
        description="How it trains", json_schema_extra=as_choices
    )

    @model_validator(mode="after")
    def _pass_rates_that_are_used(self) -> Self:
        own = isinstance(self.examples, OwnAnswers)
        if self.examples.pass_rates and not own and isinstance(self.trainer, Sft):
            raise ValueError("SFT uses no pass rates: leave out examples.pass_rates")
        if self.examples.pass_rates and isinstance(self.examples, Reconstruction):
            raise ValueError("reconstruction has no degrees of help: leave out examples.pass_rates")
        if (
            isinstance(self.trainer, Grpo)
            and self.trainer.replacements
            and not self.examples.pass_rates
        ):
            raise ValueError(
                "trainer.replacements would use up the examples before their time: set "
                "examples.pass_rates, which choose prompts in any order"
            )
        if own and isinstance(self.trainer, Grpo):
            raise ValueError(
                "own answers are targets, which GRPO does not use: use the sft trainer"
            )
        return self

    @model_validator(mode="after")
    def _reward_that_fits(self) -> Self:
        if isinstance(self.trainer, Grpo):
            self.reward_name(self.trainer)
        return self

    @property
    def validates(self) -> bool:
        """Whether it is validated while it trains, to keep its best state."""
        return self.trainer.keep == "best"

    def ramp_end(self, num_steps: int) -> int:
        """The optimizer step from which on masks and hints no longer change.

        Args:
            num_steps: Optimizer steps of the stage.
        """
        match self.examples:
            case (Reconstruction() | Completion()) as examples if examples.pass_rates is None:
                return math.ceil(examples.masks.changing * num_steps)
            case Rewriting() as examples if examples.pass_rates is None:
                return num_steps if examples.first_hint_share != examples.last_hint_share else 0
        return 0

    def reward_name(self, trainer: Grpo) -> str:
        """The name of the trainer's reward: a registered one, or user code.

        Raises `ValueError` if the preset is `published` and the task has no published reward.
        """
        preset = trainer.reward.preset
        if preset != "published":
            return preset
        published = self.examples.published_reward
        if published is None:
            raise ValueError(
                f"the task {self.examples.task!r} has no published reward; set trainer.reward.preset"
            )
        return published

    def example_fields(self) -> dict[str, Any]:
        """The fields that determine the examples; without the task if the published one."""
        counted = self.examples.identity()
        if self.examples.published_in == self.name:
            del counted["task"]
        return counted

    def identity(self) -> dict[str, Any]:
        """The fields that determine the checkpoint, apart from the step's inputs."""
        trainer = self.trainer.identity()
        del trainer["kind"]  # implied by its fields
        if not self.validates:
            trainer.pop("validation", None)
        return self.example_fields() | trainer


def title_of(checkpoint: str) -> str:
    """The display name of a checkpoint.

    >>> title_of("stage1"), title_of("base")
    ('stage 1', 'base')
    """
    return re.sub(r"(?<=[a-z])(?=[0-9])", " ", checkpoint)


PUBLISHED_STAGES = (
    Stage(name="stage1", examples=Reconstruction(), trainer=Sft()),
    Stage(name="stage2", examples=Completion(), trainer=Grpo()),
    Stage(name="stage3", examples=Rewriting(), trainer=Grpo()),
)
"""The stages of the published curriculum, with the defaults of this project."""
