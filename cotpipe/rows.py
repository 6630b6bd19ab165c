"""The row types of every table, and reading and writing them as Parquet. Rows join on `problem_id`."""

import types
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints, is_typeddict

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cotpipe.prompts import Message

_ROWS_PER_GROUP = 10_000

Row = TypeVar("Row")


@dataclass(frozen=True)
class Problem:
    """A question with a verifiable gold answer and, where the source has them, reference rationales."""

    problem_id: str
    question: str
    answer: str
    rationales: list[str]
    split: str | None = None  # set where the source itself says that a problem is held out
    batch: int = 0  # which of several sources it came from; the problems of the last one are used first


@dataclass(frozen=True)
class Reject:
    """Something that a step could not use, and why."""

    problem_id: str
    reason: str
    detail: str


@dataclass(frozen=True)
class TeacherRationale:
    """One verified rationale of the teacher."""

    problem_id: str
    sample: int
    steps: list[str]
    answer: str
    num_words: int
    num_tokens: int  # of the teacher's whole answer, thoughts included; words for the `reference` engine
    restructured: bool  # written again in steps, on request
    uses: list[list[int]]  # the step graph, see `structure.StepGraph`
    distance: list[int]
    critical: list[int]


@dataclass(frozen=True)
class TeacherOutcome:
    """What became of the teacher's answers: one row for the verified ones, one for each reason to reject."""

    outcome: str
    num_answers: int
    share: float  # of all answers
    mean_words: float  # of what was said, thoughts left out
    num_tokens: int  # of all these answers together, thoughts included: what they cost


@dataclass(frozen=True)
class Generation:
    """One answer of an engine, as it came; `shards` writes and reads them."""

    problem_id: str
    sample: int
    text: str
    thoughts: str
    num_tokens: int
    truncated: bool


@dataclass(frozen=True)
class Lesson:
    """A problem in its split, with the one rationale that is taught (no steps where it has none)."""

    problem_id: str
    split: str
    position: float  # where the id's hash falls in [0, 1); lessons of a split are used in this order
    question: str
    answer: str
    teacher_steps: list[str]
    teacher_words: int
    uses: list[list[int]]  # the step graph, see `structure.StepGraph`
    distance: list[int]
    critical: list[int]


@dataclass(frozen=True)
class Example:
    """One training row, in the order in which the trainer takes them."""

    problem_id: str
    epoch: int
    prompt: list[Message]
    target: str  # what stage 1 learns to write; the GRPO stages don't read it
    masked: list[int]  # indices of the hidden steps
    answer: str
    teacher_steps: list[str]
    teacher_words: int


@dataclass(frozen=True)
class Answered:
    """One answer of a student to a bare question, with its verdict."""

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
    """What the evaluation of one checkpoint came to, with 95 % intervals."""

    checkpoint: str
    problems: int
    accuracy: float  # share in [0, 1], as are its bounds
    accuracy_low: float
    accuracy_high: float
    tokens: float  # mean output length (the student's tokens)
    tokens_low: float
    tokens_high: float
    valid_format: float  # share in [0, 1]
    truncated: float  # share in [0, 1]


@dataclass(frozen=True)
class Failure:
    """A problem that the student persistently fails and that has a verified rationale."""

    problem_id: str
    num_steps: int  # of the teacher's rationale
    num_samples: int
    num_correct: int


@dataclass(frozen=True)
class Logged:
    """One figure that a training process logged."""

    step: int  # optimizer steps done
    name: str
    value: float


def write_rows(path: Path, row_type: type[Row], rows: Iterable[Row]) -> int:
    """Write rows of one type as a Parquet file, a bounded number of them in memory; returns how many there were."""
    count = 0
    iterator = iter(rows)
    with pq.ParquetWriter(path, schema_of(row_type), compression="zstd") as writer:
        while chunk := list(islice(iterator, _ROWS_PER_GROUP)):
            writer.write_table(to_table(row_type, chunk))
            count += len(chunk)
    return count


def to_table(row_type: type[Row], rows: Sequence[Row]) -> pa.Table:
    """Rows of one type as an Arrow table."""
    schema = schema_of(row_type)
    return pa.table({name: [getattr(row, name) for row in rows] for name in schema.names}, schema=schema)


def read_rows(path: Path, row_type: type[Row]) -> Iterator[Row]:
    """Read back what `write_rows` wrote, in the same order."""
    names = [field.name for field in fields(row_type)]  # type: ignore[arg-type]
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS_PER_GROUP, columns=names):
            for row in batch.to_pylist():
                yield row_type(**row)


def read_table(path: Path, row_type: type, chosen: pc.Expression | None = None) -> pa.Table:
    """The rows of a file (those that an expression chooses), in their order, as an Arrow table."""
    return pq.read_table(path, columns=schema_of(row_type).names, filters=chosen)


def schema_of(row_type: type) -> pa.Schema:
    """The Arrow schema of a row type, from its annotations."""
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
