"""Problems from one or more artifacts in the store."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from typing_extensions import override

from cotpipe.data.problems.source import Reading, Source, sources
from cotpipe.data.rows import Problem, Reject, read_rows
from cotpipe.store.records import Reference

PROBLEMS = "problems.parquet"
CORRECTED = "corrected answer"
"""Reason to reject a row whose question has another answer in a newer row."""


_Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


@sources.register("stored")
class StoredSource(Source):
    """Problems from one or more artifacts in the store, as used by nightly runs."""

    kind: Literal["stored"] = "stored"
    problems: tuple[_Fingerprint, ...] = Field(
        min_length=1,
        description="Fingerprints of `problems` artifacts; problems of the last one are used first",
    )
    left_out: tuple[_Fingerprint, ...] = Field(
        default=(),
        description="Those of them whose problems are not used; ids stay as if they were",
    )
    checked: ClassVar[bool] = True
    added_later: ClassVar[frozenset[str]] = frozenset({"left_out"})

    @override
    def read(self, reading: Reading) -> Iterator[Problem | Reject]:
        """The problems of all batches, each question once.

        The same question with another answer is a correction: the newest answer counts, with the id
        and the held-out split of the first. An id that another question has is qualified by the
        batch it comes from. Batches that are left out still decide ids and splits, so that a problem
        that was trained on does not become a held-out one.
        """
        files = [
            reading.stored(Reference(kind="problems", fingerprint=fingerprint), PROBLEMS)
            for fingerprint in self.problems
        ]
        questions = self._questions(files, reading)
        for number, (batch, problem) in enumerate(_rows(files)):
            if self._leaves_out(batch):
                continue
            question = questions[_key(problem)]
            if question.row == number:
                split = problem.split or question.split
                yield replace(problem, problem_id=question.problem_id, split=split, batch=batch)
            elif _is_same(problem, question, reading):
                where = f"in batch {batch}, and in another"
                yield Reject(question.problem_id, "repeated question", where)
            else:
                what = f"{problem.answer!r} in batch {batch}, corrected to {question.answer!r}"
                yield Reject(question.problem_id, CORRECTED, what)

    def _questions(self, files: list[Path], reading: Reading) -> dict[bytes, "_Question"]:
        """What counts for each question, by its hash."""
        questions: dict[bytes, _Question] = {}
        owners: dict[str, bytes] = {}  # the question that has an id
        for number, (batch, problem) in enumerate(_rows(files)):
            key, problem_id = _key(problem), problem.problem_id
            if key not in questions:
                if owners.setdefault(problem_id, key) != key:
                    problem_id = f"{problem_id}@{self.problems[batch][:8]}"
                questions[key] = _Question(problem_id, problem.split)
            question = questions[key]
            if self._leaves_out(batch):
                continue
            if question.row is None or not _is_same(problem, question, reading):
                question.answer, question.row = problem.answer, number
        return questions

    def _leaves_out(self, batch: int) -> bool:
        return self.problems[batch] in self.left_out


@dataclass
class _Question:
    """What counts for a question: the id it got first, the newest answer, and where that stands."""

    problem_id: str
    split: str | None
    answer: str = ""
    row: int | None = None  # None as long as all batches with it are left out


def _is_same(problem: Problem, question: _Question, reading: Reading) -> bool:
    return reading.answers.compare(problem.answer, question.answer, problem.question)


def _rows(files: list[Path]) -> Iterator[tuple[int, Problem]]:
    """The rows of all batches, oldest first, with the number of their batch."""
    for batch, path in enumerate(files):
        for problem in read_rows(path, Problem):
            yield batch, problem


def _key(problem: Problem) -> bytes:
    return hashlib.sha256(problem.question.encode()).digest()[:16]
