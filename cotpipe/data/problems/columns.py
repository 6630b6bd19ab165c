"""What sources of tables share: which column holds what, and a row as a problem."""

import hashlib
from abc import ABC
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from pydantic import Field

from cotpipe.data.problems.options import Options
from cotpipe.data.problems.source import Reading, Source
from cotpipe.data.rows import Problem, Reject
from cotpipe.errors import UserError
from cotpipe.section import NumRows


class TableSource(Source, ABC):
    """A source whose rows have a question, an answer, and perhaps a rationale."""

    question_column: str = Field("question", description="Column with the question")
    answer_column: str = Field(
        "answer", description="Column with the gold answer, or with `rationale #### answer`"
    )
    rationale_column: str | None = Field(
        None, description="Column with a reference rationale, if it is not in the answer"
    )
    choices_column: str | None = Field(
        None,
        description="Column with the options of a choice: a list of texts, or texts with labels; they "
        "are listed below the question as A), B), ...",
    )
    id_column: str | None = Field(
        None, description="Column with the problem's id; default: a hash of the question"
    )
    limit: NumRows | None = Field(
        None, description="Read only the first so many rows of each file or split"
    )

    added_later: ClassVar[frozenset[str]] = frozenset({"choices_column"})

    def columns(self) -> list[str]:
        """The columns that every row must have."""
        named = (
            self.question_column,
            self.answer_column,
            self.rationale_column,
            self.choices_column,
            self.id_column,
        )
        return [column for column in named if column]

    def problem_of(
        self, row: Mapping[str, Any], split: str | None, where: str, reading: Reading
    ) -> Problem | Reject:
        """The problem of a row, or why it is none.

        Args:
            row: The row, by column.
            split: The split that the source itself puts the problem into; None for none.
            where: The place of the row, for messages.
            reading: How the gold answer is read.
        """
        question = _text(row[self.question_column])
        stated = _text(row[self.answer_column])
        options = Options.of(row[self.choices_column]) if self.choices_column else None
        if options:
            question = options.below(question) if question else ""
            stated = options.letter(row[self.answer_column])
        own_id = hashlib.sha256(question.encode()).hexdigest()[:16]
        problem_id = _text(row[self.id_column]) if self.id_column else own_id
        if not question:
            return Reject(problem_id, "empty question", where)
        if self.choices_column and not options:
            detail = f"{where}: {row[self.choices_column]!r}"
            return Reject(problem_id, "not two to five options", detail[:200])
        answer = reading.gold(stated, question, problem_id, where)
        if isinstance(answer, Reject):
            return answer
        rationale = stated if "####" in stated else ""
        if self.rationale_column:
            rationale = _text(row[self.rationale_column])
        return Problem(problem_id, question, answer, [rationale] if rationale else [], split)


def require_columns(where: str, present: Iterable[str], wanted: list[str]) -> None:
    """Raise `UserError` for the first column that is wanted and not there."""
    missing = [column for column in wanted if column not in present]
    if missing:
        found = ", ".join(map(str, present)) or "none"
        raise UserError(
            f"{where}: column {missing[0]!r} is missing (found: {found}); "
            "name the right one in problems.source, for example question_column"
        )


def _text(value: Any) -> str:
    return "" if value is None or value != value else str(value).strip()
