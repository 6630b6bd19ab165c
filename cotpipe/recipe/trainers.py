"""How a stage trains: supervised fine-tuning (SFT) or group relative policy optimization (GRPO)."""

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import override

from cotpipe.rationale.rewards import rewards
from cotpipe.recipe.choices import names_of
from cotpipe.recipe.examples import Share
from cotpipe.section import BatchSize, NumRepeats, NumRows, NumTokens, Section


class Lora(Section):
    """Train low-rank adapters instead of all weights; the saved checkpoint is merged."""

    rank: int = Field(16, gt=0, le=65_536, description="Rank of the adapters")
    alpha: int = Field(
        32,
        gt=0,
        le=1_000_000,
        description="Adapter scale: the update is multiplied by alpha / rank",
    )
    dropout: Share = Field(0.05, description="Dropout on the adapter inputs")
    target_modules: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj"),
        description="Names of the modules that get adapters",
    )


class Validation(Section):
    """Greedy answers to bare questions of the validation split while a stage trains."""

    every: NumRepeats = Field(
        10, description="Optimizer steps between two validations; the first is before training"
    )
    max_problems: NumRows = Field(200, description="Maximum number of validation problems")
    patience: NumRepeats = Field(
        3,
        description="Accuracy has stopped rising after so many validations without a new best",
    )
    stops: bool = Field(
        True,
        description="End the stage where nothing is gained any more; with `reward.brevity` not before "
        "brevity was paid",
    )


class Trainer(Section, ABC):
    """Fields common to all trainers."""

    kind: str
    learning_rate: float = Field(gt=0, lt=1, description="Peak learning rate (AdamW)")
    warmup_steps: int = Field(
        0,
        ge=0,
        le=10_000_000,
        description="Optimizer steps of linear warm-up; then SFT decays to zero, GRPO is constant",
    )
    micro_batch: BatchSize = Field(8, description="Rows per forward pass; fewer use less memory")
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations: slower, but far less memory"
    )
    lora: Lora | None = Field(None, description="Low-rank adapters; default: train all weights")
    keep: Literal["best", "last"] = Field(
        "last",
        description="`best`: the state with the most right answers to the validation problems (GRPO: "
        "of those at most a standard error below it, the one with the shortest answers), or else the "
        "checkpoint that the stage starts from; `last`: the last one, unseen",
    )
    validation: Validation = Field(
        default_factory=Validation, description="Validation while training, for `keep: best`"
    )
    added_later: ClassVar[frozenset[str]] = frozenset({"keep", "validation"})
    curves: ClassVar[tuple[str, ...]] = ()
    """Metrics of the training log that the report plots."""
    per_step_field: ClassVar[str]
    """The field that sets `examples_per_step`."""
    length_field: ClassVar[str]
    """The field that sets how long a row may be (tokens)."""

    @property
    @abstractmethod
    def rows_per_step(self) -> int:
        """Rows (SFT) or completions (GRPO) per optimizer step."""

    @property
    @abstractmethod
    def examples_per_step(self) -> int:
        """Rows of the examples table per optimizer step."""

    @property
    @abstractmethod
    def longest_row(self) -> int:
        """Maximum length of prompt plus completion (tokens)."""


class Sft(Trainer):
    """Supervised fine-tuning; the loss covers only the target."""

    kind: Literal["sft"] = "sft"
    learning_rate: float = Field(1e-4, gt=0, lt=1, description="Peak learning rate (AdamW)")
    batch_size: BatchSize = Field(
        32, description="Rows per optimizer step; rows too few for a whole one are left out"
    )
    max_length: NumTokens = Field(
        2048, description="Maximum length of prompt plus target (tokens); longer rows are dropped"
    )
    curves: ClassVar[tuple[str, ...]] = ("loss",)
    per_step_field: ClassVar[str] = "batch_size"
    length_field: ClassVar[str] = "max_length"

    @model_validator(mode="after")
    def _whole_batches(self) -> Self:
        if self.batch_size % self.micro_batch:
            raise ValueError(
                f"batch_size ({self.batch_size}) is not a multiple of "
                f"micro_batch ({self.micro_batch})"
            )
        return self

    @property
    @override
    def rows_per_step(self) -> int:
        """The batch size."""
        return self.batch_size

    @property
    @override
    def examples_per_step(self) -> int:
        """The batch size."""
        return self.batch_size

    @property
    @override
    def longest_row(self) -> int:
        """Maximum length of prompt plus target (tokens)."""
        return self.max_length


class Brevity(Section):
    """What a right completion loses for being longer than the shortest right one of its group."""

    weight: float = Field(
        0.2, gt=0, le=0.5, description="What one loses that is at least twice as long"
    )
    min_pass_rate: Share = Field(
        0.75, description="Only in groups of which at least this share is right"
    )
    min_accuracy: Share = Field(
        0.9,
        description="Only once the accuracy on the validation problems has reached this, or has "
        "stopped rising (`validation.patience`)",
    )


class Reward(Section):
    """The reward of a completion, and its unit of length."""

    preset: Annotated[str, AfterValidator(rewards.require_known)] = Field(
        "published",
        description="`published`: the reward of the stage's task (`recovery` for completion, "
        "`rewrite` for rewriting); `correct-first`: 1 if right and well-formed, else 0; or a reward "
        "by name",
        json_schema_extra=names_of(rewards),
    )
    brevity: Brevity | None = Field(
        None,
        description="Brevity within a group, on bare questions; default: no pay beyond the preset's",
    )
    length_unit: Literal["words", "tokens"] = Field(
        "words", description="Unit of length: words, or tokens of the student"
    )
    named: ClassVar[frozenset[str]] = frozenset({"preset"})
    added_later: ClassVar[frozenset[str]] = frozenset({"brevity"})


class Grpo(Trainer):
    """Group relative policy optimization: compares the completions of a prompt."""

    kind: Literal["grpo"] = "grpo"
    learning_rate: float = Field(1e-5, gt=0, lt=1, description="Peak learning rate (AdamW)")
    group_size: int = Field(8, ge=2, le=1000, description="Completions per prompt (the group)")
    prompts_per_step: BatchSize = Field(
        4, description="Prompts per optimizer step; prompts too few for a whole one are left out"
    )
    kl: float = Field(
        0.0,
        ge=0,
        description="Coefficient of the KL penalty against the stage's initial checkpoint",
    )
    clip_range: float = Field(
        0.2, gt=0, lt=1, description="Clipping range of the probability ratio"
    )
    clip_range_high: float | None = Field(
        None,
        gt=0,
        lt=10,
        description="Upper clipping range, if another (DAPO: 0.28); default: `clip_range`",
    )
    loss: Literal["grpo", "bnpo", "dr_grpo", "dapo"] = Field(
        "dapo",
        description="How token losses are averaged: over each completion (`grpo`), the tokens of a "
        "micro-batch (`bnpo`), the tokens of an optimizer step (`dapo`), or by a constant length "
        "(`dr_grpo`)",
    )
    mask_truncated: bool = Field(
        False, description="Leave truncated completions out of the loss (DAPO's overlong filtering)"
    )
    replacements: int = Field(
        0,
        ge=0,
        le=100_000,
        description="Dynamic sampling: the most prompts per optimizer step that are drawn in place of "
        "prompts whose completions all get the same reward",
    )
    scale_rewards: Literal["group", "batch", "none"] = Field(
        "group",
        description="Normalise advantages by the standard deviation of the group, the batch, or not",
    )
    temperature: float = Field(1.0, gt=0, le=2, description="Sampling temperature")
    top_p: float = Field(
        1.0, gt=0, le=1, description="Nucleus sampling: share of the probability that is kept"
    )
    max_new_tokens: NumTokens = Field(
        256, description="Maximum length of a completion (tokens); longer ones are truncated"
    )
    max_prompt_length: NumTokens = Field(
        1024, description="Maximum length of a prompt (tokens); longer rows are dropped"
    )
    reward: Reward = Field(default_factory=Reward, description="Reward of a completion")
    curves: ClassVar[tuple[str, ...]] = ("reward", "completion_tokens")
    per_step_field: ClassVar[str] = "prompts_per_step"
    length_field: ClassVar[str] = "max_prompt_length"
    added_later: ClassVar[frozenset[str]] = Trainer.added_later | {
        "clip_range_high",
        "loss",
        "mask_truncated",
        "replacements",
    }

    @model_validator(mode="after")
    def _brevity_that_waits(self) -> Self:
        if self.reward.brevity and self.keep != "best":
            raise ValueError("reward.brevity waits for the validation accuracy: set keep to best")
        return self

    @model_validator(mode="after")
    def _whole_batches(self) -> Self:
        if self.rows_per_step % self.micro_batch:
            raise ValueError(
                f"group_size x prompts_per_step ({self.rows_per_step} completions) is not a multiple "
                f"of micro_batch ({self.micro_batch})"
            )
        return self

    @property
    @override
    def rows_per_step(self) -> int:
        """Completions per optimizer step, over all groups."""
        return self.group_size * self.prompts_per_step

    @property
    @override
    def examples_per_step(self) -> int:
        """Prompts per optimizer step."""
        return self.prompts_per_step

    @property
    @override
    def longest_row(self) -> int:
        """Maximum length of prompt plus completion (tokens)."""
        return self.max_prompt_length + self.max_new_tokens
