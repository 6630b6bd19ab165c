"""What was rewarded while a stage trained: between two validations, the best and the worst paid completion."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import duckdb

from cotpipe.recipe.stages import title_of
from cotpipe.report.plain import cut
from cotpipe.report.training_curves import Training

_MOST_SPANS = 10
_MOST_CHARACTERS = 2_000  # of one text


@dataclass(frozen=True)
class Paid:
    """A completion and what it was paid."""

    question: str
    completion: str
    right: bool  # and well-formed
    paid: str  # the reward and its parts
    shown: str  # its optimizer step, and whether the prompt gave help


@dataclass(frozen=True)
class Span:
    """The completions of some optimizer steps of a stage, and the extremes among them."""

    title: str
    num_rollouts: int
    mean_reward: float
    most: Paid
    least: Paid


def rewarded(trainings: Mapping[str, Training]) -> list[Span]:
    """The spans of all stages that have rollouts, in their order, some ten of a stage."""
    with duckdb.connect() as connection:
        return [
            span
            for stage, training in trainings.items()
            if training.rollouts
            for first, last in _spans(training)
            if (span := _span(connection, stage, training.rollouts, first, last))
        ]


def _spans(training: Training) -> list[tuple[int, int]]:
    """First and last optimizer steps, from validation to validation as far as there are any."""
    ends = range(training.optimizer_steps + 1)
    logged = training.log[training.log["name"] == "validation_accuracy"]["step"]
    bounds: Sequence[int] = sorted({0, *map(int, logged), ends[-1]}) if len(logged) else ends
    size = -(-(len(bounds) - 1) // _MOST_SPANS) or 1
    chosen = [*bounds[:-1:size], bounds[-1]]
    return [(before + 1, last) for before, last in pairwise(chosen)]


def _span(
    connection: duckdb.DuckDBPyConnection, stage: str, file: Path, first: int, last: int
) -> Span | None:
    """The best and the worst paid of these steps; None if nothing was sampled in them."""
    rows = "from read_parquet(?) where step between ? and ?"
    arguments = [str(file), first, last]
    counted = connection.execute(f"select count(*), avg(reward) {rows}", arguments).fetchone()
    assert counted
    if not counted[0]:
        return None
    steps = f"step {first}" if first == last else f"steps {first} to {last}"
    return Span(
        f"{title_of(stage)}, {steps}",
        counted[0],
        counted[1],
        most=_first_by(connection, f"{rows} order by reward desc", arguments),
        least=_first_by(connection, f"{rows} order by reward", arguments),
    )


def _first_by(
    connection: duckdb.DuckDBPyConnection, rows: str, arguments: Sequence[object]
) -> Paid:
    found = connection.execute(
        f"select *, prompt[-1].content as question {rows}, step, example, completion limit 1",
        arguments,
    )
    values = found.fetchone()
    assert values
    one = dict(zip((column[0] for column in found.description), values, strict=True))
    verdict = "right" if one["correct"] else "wrong"
    return Paid(
        question=cut(one["question"], _MOST_CHARACTERS),
        completion=cut(one["completion"], _MOST_CHARACTERS),
        right=one["correct"] and one["valid_format"],
        paid=f"reward {one['reward']:.2f} (base {one['base']:.2f}, steps {one['brevity_steps']:+.2f}, "
        f"length {one['length']:+.2f}); {verdict}{'' if one['valid_format'] else ', not well-formed'}, "
        f"{one['num_tokens']} tokens{', cut off' if one['truncated'] else ''}",
        shown=f"step {one['step']}, {'with help' if one['helped'] else 'the bare question'}",
    )
