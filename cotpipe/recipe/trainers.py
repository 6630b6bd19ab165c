"""How a stage trains: supervised fine-tuning (SFT) or group relative policy optimization (GRPO)."""

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import override

from cotpipe.rationale.rewards import rewards
from cotpipe.recipe.choices import names_of
from cotpipe.recipe.examples import Share
from cotpipe.section import BatchSize, NumTokens, Section


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


class Reward(Section):
    """The reward of a completion, and its unit of length."""

    preset: Annotated[str, AfterValidator(rewards.require_known)] = Field(
        "published",
        description="`published`: the reward of the stage's task (`recovery` for completion, "
        "`rewrite` for rewriting); or a reward by name",
        json_schema_extra=names_of(rewards),
    )
    length_unit: Literal["words", "tokens"] = Field(
        "words", description="Unit of length: words, or tokens of the student"
    )
    named: ClassVar[frozenset[str]] = frozenset({"preset"})


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
