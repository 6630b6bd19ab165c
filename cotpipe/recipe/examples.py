"""What a stage trains on: its task, its problems, and what is hidden from the student."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from cotpipe.rationale.masks import masks
from cotpipe.recipe.choices import names_of
from cotpipe.section import NumRepeats, NumRows, NumTokens, Section

Share = Annotated[float, Field(ge=0, le=1)]
LessonsOf = Literal["stage1", "stage2", "mining", "failures"]


class Masks(Section):
    """How many rationale steps are hidden from the student, and which."""

    kind: Annotated[str, AfterValidator(masks.require_known)] = Field(
        "random",
        description="Which steps: random, scattered, consecutive, or never the first and last; or "
        "by the step graph: those the answer depends on (`critical`), those that use no other step "
        "(`leaves`), near the answer or far from it",
        json_schema_extra=names_of(masks),
    )
    amount: Literal["one", "half", "share"] = Field(
        "share",
        description="`one` step; `half`: max(3, half of them), leaving at least one; or `share`, "
        "which ramps as set below",
    )
    probability: Share = Field(1.0, description="Probability that a row is masked")
    first_share: Share = Field(
        0.25, description="Share of steps masked at the start of the stage (for `share`)"
    )
    last_share: Share = Field(
        1.0,
        description="Share of steps masked at the end of the ramp; at 1 only the question is left",
    )
    ramp: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Fraction of the stage over which the share ramps; constant afterwards",
    )
    named: ClassVar[frozenset[str]] = frozenset({"kind"})

    @property
    def changing(self) -> float:
        """Fraction of the stage over which the share of masked steps changes, in [0, 1]."""
        ramps = self.amount == "share" and self.first_share != self.last_share
        return self.ramp if ramps else 0.0


class PassRates(Section):
    """Pass rates on the bare questions, measured with the checkpoint that the stage starts from.

    GRPO then prefers problems that are neither too easy nor too hard, and helps where none of the
    completions is right: masks hide less and less, and again more as the problem is solved. Of the
    masks, `kind` and `first_share` (the most help) count then; the shares of hints do not.
    """

    num_samples: NumRepeats = Field(8, description="Answers sampled per problem")
    temperature: float = Field(0.7, gt=0, le=2, description="Sampling temperature")
    max_new_tokens: NumTokens = Field(256, description="Maximum length of an answer (tokens)")
    lowest: Share = Field(0.2, description="Problems with a lower pass rate come less often")
    highest: Share = Field(0.8, description="Problems with a higher pass rate come less often")
    rungs: int = Field(
        4, ge=1, le=20, description="Degrees of help, from the bare question to the most help"
    )
    max_helped: Share = Field(
        0.25,
        description="Largest share of an optimizer step's prompts that show help, while there are others; "
        "at 0 none ever does",
    )
    added_later: ClassVar[frozenset[str]] = frozenset({"max_helped"})

    def sampled(self) -> dict[str, object]:
        """The fields that decide which answers are sampled."""
        return self.model_dump(include={"num_samples", "temperature", "max_new_tokens"})

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.lowest > self.highest:
            raise ValueError(f"lowest ({self.lowest}) is above highest ({self.highest})")
        return self


class Examples(Section):
    """The training examples of a stage: which task, on which problems."""

    task: str
    published_in: ClassVar[str]
    """The stage of the published curriculum that uses this task."""
    published_reward: ClassVar[str | None] = None

    problems: LessonsOf
    max_problems: NumRows | None = Field(None, description="Maximum number of problems to use")
    num_epochs: NumRepeats = Field(1, description="Epochs, each with new masks and a new order")
    pass_rates: PassRates | None = Field(
        None, description="Choose the prompts of GRPO by pass rate; default: all, in order"
    )
    added_later: ClassVar[frozenset[str]] = frozenset({"problems", "pass_rates"})


_PROBLEMS = (
    "Which problems: the split `stage1`, `stage2` or `mining`, or the persistent `failures` of the "
    "checkpoint the stage starts from"
)


class Reconstruction(Examples):
    """Prompt: the question and its steps, shuffled and masked. Target: the rationale in order."""

    task: Literal["reconstruction"] = "reconstruction"
    problems: LessonsOf = Field("stage1", description=_PROBLEMS)
    masks: Masks = Field(
        default_factory=Masks, description="Which steps are masked; all steps are shuffled"
    )
    published_in: ClassVar[str] = "stage1"


class Completion(Examples):
    """Prompt: the question and its steps in order, many masked. Target: the whole rationale."""

    task: Literal["completion"] = "completion"
    problems: LessonsOf = Field("stage2", description=_PROBLEMS)
    masks: Masks = Field(
        default_factory=lambda: Masks(kind="scattered", amount="half"),
        description="Which steps are masked; their order is kept",
    )
    published_in: ClassVar[str] = "stage2"
    published_reward: ClassVar[str | None] = "recovery"


class Rewriting(Examples):
    """Prompt: the question, with the teacher's rationale as a hint that is annealed away."""

    task: Literal["rewriting"] = "rewriting"
    problems: LessonsOf = Field("failures", description=_PROBLEMS)
    first_hint_share: Share = Field(
        1.0, description="Share of prompts with the teacher's rationale at the start of the stage"
    )
    last_hint_share: Share = Field(
        0.0, description="Share of prompts with the hint at the end of the stage"
    )
    published_in: ClassVar[str] = "stage3"
    published_reward: ClassVar[str | None] = "rewrite"


class OwnAnswers(Examples):
    """Prompt: the bare question. Target: the student's own shortest right answer.

    Where none of its answers to the bare question is right, it is shown the first step of the
    teacher's rationale, then more, until one is: what it wins with a hint it learns to do without.
    """

    task: Literal["own-answers"] = "own-answers"
    problems: LessonsOf = Field("mining", description=_PROBLEMS)
    pass_rates: PassRates | None = Field(
        default_factory=PassRates, description="How its answers are sampled"
    )
    hints: bool = Field(True, description="Show hints where all answers are wrong")
    published_in: ClassVar[str] = ""

    @model_validator(mode="after")
    def _sampled(self) -> Self:
        if self.pass_rates is None:
            raise ValueError("own answers are sampled: pass_rates cannot be empty")
        return self
