"""The recipe's problems: where they come from, the splits, and the kind of their answers."""

from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from cotpipe.data.problems import ProblemSource
from cotpipe.data.problems.arithmetic import ArithmeticSource
from cotpipe.data.rows import Split
from cotpipe.rationale.answers import answer_kinds
from cotpipe.recipe.choices import as_choices, names_of
from cotpipe.recipe.examples import Share
from cotpipe.section import Section


class SplitShares(Section):
    """The share of problems in each split. A hash of a problem's id decides its split."""

    stage1: Share = Field(0.35, description="Share of problems for stage 1")
    stage2: Share = Field(0.35, description="Share of problems for stage 2")
    mining: Share = Field(
        0.1, description="Share of problems from which persistent failures are mined"
    )
    validation: Share = Field(0.05, description="Share of problems held out for comparing recipes")
    test: Share = Field(0.15, description="Share of problems held out for the final results")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        total = self.stage1 + self.stage2 + self.mining + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares of the splits must add up to 1, not to {total:g}")
        return self

    def by_name(self) -> dict[Split, float]:
        """The share of each split, in order."""
        return self.model_dump()  # type: ignore[return-value]


class Answers(Section):
    """The kind of answers: how they are extracted, compared, and asked for."""

    kind: Annotated[str, AfterValidator(answer_kinds.require_known)] = Field(
        "number",
        description="`number`; `math`: expressions, intervals, sets and the like, by their value; "
        "`exact`: a short text; `choice`: one of the options A to E of the question",
        json_schema_extra=names_of(answer_kinds),
    )
    named: ClassVar[frozenset[str]] = frozenset({"kind"})
    version: ClassVar[int] = 3
    """Raised whenever a kind other than `number` finds or compares answers in another way."""

    def identity(self) -> dict[str, Any]:
        """See `Section.identity`; numbers, the default, do not count at all."""
        return super().identity() | {"version": self.version}


class Problems(Section):
    """The source of the problems, and how they are split."""

    source: ProblemSource = Field(
        default_factory=ArithmeticSource,
        description="Source of the problems",
        json_schema_extra=as_choices,
    )
    answers: Answers = Field(default_factory=Answers, description="Kind of answers")
    splits: SplitShares = Field(default_factory=SplitShares, description="Shares of the splits")
    near_duplicate: float = Field(
        0.9,
        gt=0,
        le=1,
        description="Training problems at least this similar to a held-out question are dropped "
        "(Jaccard similarity of 3-word shingles)",
    )
    max_rejected_share: Share = Field(
        0.1, description="The step fails if it rejects more than this share of rows"
    )
    added_later: ClassVar[frozenset[str]] = frozenset({"answers"})
