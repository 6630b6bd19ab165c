"""Problems from a user function."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field
from typing_extensions import override

from cotpipe.data.problems.source import Reading, Source, sources
from cotpipe.data.rows import Problem, Reject
from cotpipe.errors import UserError
from cotpipe.extensions import is_own, iterated, load_own, returned
from cotpipe.rationale.answers import NUMBER


def _require_own(name: str) -> str:
    if not is_own(name):
        raise ValueError(f"{name!r} does not name a function; write path/to/file.py:function")
    return name


def _checked(problem: Problem, name: str) -> Problem:
    """The problem; raises `UserError`, with the function's name, for a field of another type."""
    texts = {name: getattr(problem, name) for name in ("problem_id", "question", "answer")}
    wrong = [name for name, text in texts.items() if not isinstance(text, str)]
    if not isinstance(problem.rationales, list) or not all(
        isinstance(text, str) for text in problem.rationales
    ):
        wrong.append("rationales")
    if wrong:
        raise UserError(
            f"{name} yielded a problem whose {wrong[0]} is {getattr(problem, wrong[0])!r}; ids, "
            "questions and answers are texts, rationales a list of texts"
        )
    if problem.split not in (None, "validation", "test"):
        raise UserError(
            f"{name} yielded a problem of the split {problem.split!r}; a source may set validation "
            "or test, or None"
        )
    return problem


def _with_gold(problem: Problem, reading: Reading) -> Problem | Reject:
    """The problem with its gold answer as the kind of answers reads it."""
    if reading.answers is NUMBER:  # as the function gives it: artifacts made before stay valid
        return problem
    gold = reading.gold(problem.answer, problem.question, problem.problem_id)
    return gold if isinstance(gold, Reject) else replace(problem, answer=gold)


@sources.register("own")
class OwnSource(Source):
    """A user function that takes the recipe's seed and options, and yields `Problem`s."""

    kind: Literal["own"] = "own"
    function: Annotated[str, AfterValidator(_require_own)] = Field(
        description="path/to/file.py:function, or package.module:function"
    )
    options: dict[str, bool | int | float | str | None] = Field(
        default_factory=dict, description="Keyword arguments of the function"
    )
    named: ClassVar[frozenset[str]] = frozenset({"function"})

    @override
    def read(self, reading: Reading) -> Iterator[Problem | Reject]:
        """The problems that the function yields.

        Raises `UserError` if the function cannot be loaded, raises, or yields another type or a
        duplicate id.
        """
        seen: set[str] = set()
        rows: Any = load_own(self.function)(reading.seed, **self.options)
        if not hasattr(rows, "__iter__"):
            raise UserError(
                f"{self.function} returned {type(rows).__name__}, not an iterable of problems"
            )
        for row in iterated(rows, self.function):
            if isinstance(row, Reject):
                yield row
                continue
            problem = _checked(returned(self.function, row, Problem), self.function)
            if problem.problem_id in seen:
                raise UserError(
                    f"{self.function} yielded the id {problem.problem_id!r} twice; make ids unique"
                )
            seen.add(problem.problem_id)
            yield _with_gold(problem, reading)

    @override
    def check(self) -> str:
        load_own(self.function)
        return f"{self.function} exists"
