"""The row types of all tables, stored as Parquet; tables join on `problem_id`."""

import types
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from pathlib import Path
from typing import (
    Any,
    Generic,
    Literal,
    Self,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import pyarrow as pa
import pyarrow.parquet as pq

from cotpipe.rationale.prompts import Message

_ROWS_PER_GROUP = 10_000

Split = Literal["stage1", "stage2", "mining", "validation", "test"]
"""Where a problem is used; the last two are held out."""

Row = TypeVar("Row")


@dataclass(frozen=True)
class Problem:
    """A question with a verifiable gold answer and, if available, reference rationales."""

    problem_id: str
    question: str
    answer: str
    rationales: list[str]
    split: str | None = None  # set if the source assigns the problem to a held-out split
    batch: int = 0  # index of its source, if there are several; the last source is used first


@dataclass(frozen=True)
class Reject:
    """An item that a step rejected, and why."""

    problem_id: str
    reason: str
    detail: str


@dataclass(frozen=True)
class TeacherRationale:
    """A verified rationale of the teacher."""

    problem_id: str
    sample: int
    steps: list[str]
    answer: str
    num_words: int
    num_tokens: int  # whole completion including thinking; words for the `reference` engine
    restructured: bool  # rewritten as steps by the teacher
    uses: list[list[int]]  # the step graph, see `graph.RationaleGraph`
    distance: list[int]
    critical: list[int]


@dataclass(frozen=True)
class TeacherOutcome:
    """Statistics of the teacher's completions: one row for verified ones, one per reject reason."""

    outcome: str
    num_answers: int
    share: float  # of all completions
    mean_words: float  # without thinking
    num_tokens: int  # total, including thinking


@dataclass(frozen=True)
class Generation:
    """A raw completion of an engine, stored in shards."""

    problem_id: str
    sample: int
    text: str
    thoughts: str
    num_tokens: int
    truncated: bool
    refused: str  # why the model could not be asked, such as a prompt that is too long


@dataclass(frozen=True)
class Lesson:
    """A problem in its split, with the rationale to learn from (no steps if it has none)."""

    problem_id: str
    split: str
    position: float  # hash of the id, in [0, 1); lessons of a split are used in this order
    question: str
    answer: str
    teacher_steps: list[str]
    teacher_words: int
    uses: list[list[int]]  # the step graph, see `graph.RationaleGraph`
    distance: list[int]
    critical: list[int]


@dataclass(frozen=True)
class Example:
    """A training row; tables are in training order."""

    problem_id: str
    epoch: int
    prompt: list[Message]
    target: str  # the SFT target; unused by GRPO
    masked: list[int]  # indices of the masked rationale steps
    answer: str
    teacher_steps: list[str]
    teacher_words: int
    pass_rate: float | None = None  # of the bare question before the stage; None: not measured


@dataclass(frozen=True)
class Answered:
    """A student's completion for a plain question, with its verdict."""

    problem_id: str
    sample: int
    question: str
    answer: str
    completion: str
    predicted: str | None
    correct: bool
    valid_format: bool
    num_tokens: int
    truncated: bool


@dataclass(frozen=True)
class Result:
    """The evaluation result of a checkpoint, with 95 % confidence intervals."""

    checkpoint: str
    problems: int
    accuracy: float  # in [0, 1], like its bounds
    accuracy_low: float
    accuracy_high: float
    tokens: float  # mean completion length in the student's tokens
    tokens_low: float
    tokens_high: float
    valid_format: float  # share in [0, 1]
    truncated: float  # share in [0, 1]


@dataclass(frozen=True)
class Failure:
    """A problem with a verified rationale that the student persistently fails."""

    problem_id: str
    num_steps: int  # of the teacher's rationale
    num_samples: int
    num_correct: int


@dataclass(frozen=True)
class Attempt:
    """A completion that a student sampled before a stage, to learn what it can already do."""

    problem_id: str
    rung: int  # how much help was shown; 0: none
    sample: int
    completion: str
    right: bool  # and well-formed
    num_tokens: int


@dataclass(frozen=True)
class PassRate:
    """How often a student solves a problem's bare question."""

    problem_id: str
    num_samples: int
    num_right: int


@dataclass(frozen=True)
class ValidatedAnswer:
    """Whether a state of a stage in training solves a validation problem, greedily."""

    step: int  # optimizer steps completed
    kept: bool  # whether the stage's checkpoint is of this step
    problem_id: str
    correct: bool
    num_tokens: int


@dataclass(frozen=True)
class Rollout:
    """A completion that was sampled and rewarded while a stage trained."""

    step: int  # the optimizer step that it was sampled for, from 1
    example: int  # row of the stage's examples; those of a step with the same are a group
    problem_id: str
    helped: bool  # the prompt shows more than the bare question
    trained: bool  # false: its group was sampled and not taken, as all its rewards are equal
    prompt: list[Message]
    completion: str
    num_tokens: int
    truncated: bool
    correct: bool
    valid_format: bool
    reward: float
    base: float  # the parts of the reward, see `rewards.RewardParts`
    brevity_steps: float
    length: float
    advantage: float | None  # None: not trained


@dataclass(frozen=True)
class Logged:
    """A metric logged by a training process."""

    step: int  # optimizer steps completed
    name: str
    value: float


class RowsWriter(Generic[Row]):
    """Writes rows to a Parquet file in bounded memory, within a `with` block."""

    def __init__(
        self, path: Path, row_type: type[Row], rows_per_group: int = _ROWS_PER_GROUP
    ) -> None:
        self.count = 0
        self._row_type, self._rows_per_group = row_type, rows_per_group
        self._waiting: list[Row] = []
        self._writer = pq.ParquetWriter(path, schema_of(row_type), compression="zstd")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        with self._writer:
            if error is None:
                self._write()

    def add(self, row: Row) -> None:
        """Write a row, at the latest with the end of the block."""
        self.count += 1
        self._waiting.append(row)
        if len(self._waiting) == self._rows_per_group:
            self._write()

    def _write(self) -> None:
        if self._waiting:
            self._writer.write_table(to_table(self._row_type, self._waiting))
            self._waiting = []


def write_rows(path: Path, row_type: type[Row], rows: Iterable[Row]) -> int:
    """Write rows to a Parquet file in bounded memory; returns the number of rows."""
    with RowsWriter(path, row_type) as writer:
        for row in rows:
            writer.add(row)
    return writer.count


def to_table(row_type: type[Row], rows: Sequence[Row]) -> pa.Table:
    """Convert rows to an Arrow table."""
    schema = schema_of(row_type)
    return pa.table(
        {name: [getattr(row, name) for row in rows] for name in schema.names}, schema=schema
    )


def read_rows(path: Path, row_type: type[Row]) -> Iterator[Row]:
    """Read the rows of a file written by `write_rows`, in order."""
    names = [field.name for field in fields(row_type)]  # type: ignore[arg-type]
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS_PER_GROUP, columns=names):
            for row in batch.to_pylist():
                yield row_type(**row)


def read_range(path: Path, row_type: type[Row], start: int, stop: int) -> list[Row]:
    """Read a range of rows; reads only the row groups that hold them.

    Args:
        path: A Parquet file with rows of `row_type`.
        row_type: The row type.
        start: Number of the first row, from 0.
        stop: Number of the row after the last.
    """
    names = [field.name for field in fields(row_type)]  # type: ignore[arg-type]
    with pq.ParquetFile(path) as file:
        ends = list(
            accumulate(file.metadata.row_group(n).num_rows for n in range(file.num_row_groups))
        )
        first, last = bisect_right(ends, start), bisect_left(ends, stop)
        before = ends[first - 1] if first else 0
        table = file.read_row_groups(list(range(first, last + 1)), columns=names)
    return [row_type(**row) for row in table.slice(start - before, stop - start).to_pylist()]


def read_table(path: Path, row_type: type) -> pa.Table:
    """Read the rows of a file as an Arrow table, in file order."""
    return pq.read_table(path, columns=schema_of(row_type).names)


def schema_of(row_type: type) -> pa.Schema:
    """The Arrow schema of a row type, derived from its annotations."""
    hints = get_type_hints(row_type)
    return pa.schema([_field(field.name, hints[field.name]) for field in fields(row_type)])


def _field(name: str, annotation: Any) -> pa.Field:
    nullable = get_origin(annotation) is types.UnionType
    if nullable:
        annotation = next(choice for choice in get_args(annotation) if choice is not type(None))
    return pa.field(name, _arrow_type(annotation), nullable=nullable)


def _arrow_type(annotation: Any) -> pa.DataType:
    plain = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    if annotation in plain:
        return plain[annotation]
    if get_origin(annotation) is list:
        return pa.list_(_arrow_type(get_args(annotation)[0]))
    assert is_typeddict(annotation), f"no Arrow type for {annotation}"
    return pa.struct([_field(name, kind) for name, kind in get_type_hints(annotation).items()])
