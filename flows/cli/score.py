"""The command that scores completions offline."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from cotpipe.errors import UserError
from cotpipe.rationale.answers import answer_kind, answer_kinds
from cotpipe.rationale.lengths import count_words
from cotpipe.rationale.rewards import Target, reward_named, rewards
from cotpipe.recipe.files import describe
from flows.cli.terminal import Terminal


class ScoreRow(BaseModel):
    """The columns that `cotpipe score` needs; others pass through."""

    model_config = ConfigDict(extra="allow")

    completion: str = Field(description="The completion")
    answer: str = Field(description="The gold answer")
    teacher_steps: PositiveInt = Field(description="Number of steps of the teacher's rationale")
    teacher_words: PositiveInt = Field(description="Number of words of the teacher's rationale")
    question: str = Field("", description="The question; needed if it lists the options")


def score(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN.jsonl", help="Rows with completion, answer, teacher_steps, teacher_words."
        ),
    ],
    target: Annotated[
        Path, typer.Argument(metavar="OUT.jsonl", help="The same rows with reward and its parts.")
    ],
    reward: Annotated[
        str,
        typer.Option(
            help=f"The reward: {', '.join(rewards.names())}, or your own, path/to/file.py:function."
        ),
    ],
    answers: Annotated[
        str,
        typer.Option(help=f"The kind of answers: {', '.join(answer_kinds.names())}, or your own."),
    ] = "number",
) -> None:
    """Score completions offline, to test a reward before spending GPU hours on it."""
    rows = list(_score_rows(source, reward, answers))
    try:
        with target.open("w", encoding="utf-8") as output:
            output.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    except OSError as error:
        raise UserError(f"{target}: cannot be written: {error.strerror}") from error
    mean = sum(row["reward"] for row in rows) / len(rows)
    Terminal().print(f"{len(rows)} completions, mean reward {mean:.3f}, written to {target}")


def _score_rows(source: Path, reward: str, answers: str) -> Iterator[dict[str, Any]]:
    pay, kind = reward_named(reward), answer_kind(answers)
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{source}: cannot be read: {error}") from error
    if not any(line.strip() for line in lines):
        raise UserError(f"{source}: the file has no rows")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = ScoreRow.model_validate_json(line)
        except ValidationError as error:
            raise UserError(f"{source}, line {number}: {describe(error)}") from error
        target = Target(row.answer, row.teacher_steps, row.teacher_words, kind, row.question)
        yield row.model_dump() | vars(pay(row.completion, target, count_words))
