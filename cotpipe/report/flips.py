"""Problems that one checkpoint solves and another does not, with everybody's answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cotpipe.rationale.format import format_rationale
from cotpipe.report.plain import cut

if TYPE_CHECKING:
    import pandas as pd

_MOST_CHARACTERS = 4_000  # of one answer
_MOST_IN_ALL = 2_500_000  # of all of them, which keeps the page under 5 MB


@dataclass(frozen=True)
class Flips:
    """The problems whose answers changed between right and wrong."""

    shown: list[dict[str, Any]]  # question, gold, teacher, and an answer per checkpoint
    num_flipped: int
    num_problems: int


def flips(rows: "Mapping[str, pd.DataFrame]", teacher: Mapping[str, Sequence[str]]) -> Flips:
    """The problems that not all checkpoints answer alike, by id, as many as a page can hold.

    Args:
        rows: The evaluation rows of every checkpoint, on the same problems in the same order.
        teacher: The steps of the teacher's rationale, by problem id.
    """
    tables = list(rows.values())
    right = [table["correct"].tolist() for table in tables]
    flipped = [number for number, each in enumerate(zip(*right, strict=True)) if len(set(each)) > 1]
    shown: list[dict[str, Any]] = []
    characters = 0
    for number in flipped:
        problem = _problem([table.iloc[number] for table in tables], teacher)
        characters += sum(len(text) for text in _texts(problem))
        if characters > _MOST_IN_ALL:
            break
        shown.append(problem)
    return Flips(shown, len(flipped), len(right[0]))


def _problem(answers: "list[pd.Series]", teacher: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    first = answers[0]
    steps = teacher.get(first["problem_id"], ())
    return {
        "question": cut(first["question"], _MOST_CHARACTERS),
        "gold": cut(first["answer"], _MOST_CHARACTERS),
        "teacher": cut(format_rationale(steps, first["answer"]), _MOST_CHARACTERS) if steps else "",
        "answers": [
            {
                "right": bool(row["correct"]),
                "tokens": int(row["num_tokens"]),
                "text": cut(row["completion"], _MOST_CHARACTERS),
            }
            for row in answers
        ],
    }


def _texts(problem: dict[str, Any]) -> list[str]:
    return [problem["question"], problem["teacher"], *(one["text"] for one in problem["answers"])]
