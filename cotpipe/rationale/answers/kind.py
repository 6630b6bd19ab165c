"""A kind of answer: what it consists of, the built-in ones by name, and those of users."""

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from cotpipe.extensions import Registry, is_own, load_own, returned
from cotpipe.rationale.answers.process import CheckingProcess, UncheckedError
from cotpipe.rationale.answers.stated import stated_answer

logger = logging.getLogger(__name__)


class Graded(NamedTuple):
    """The final answer of a text, and whether it is right."""

    answer: str | None
    right: bool
    unchecked: str | None = None  # why it could not be checked, and therefore counts as wrong


@dataclass(frozen=True, kw_only=True)
class AnswerKind:
    """A type of answer: how it is asked for, found, and compared."""

    form: str
    """Placeholder in the instruction, as in `Answer: number`."""
    match: Callable[[str, str, str], bool]
    """Whether an answer is right: gets the answer, the gold answer, and the question."""
    extract: Callable[[str], str | None] = stated_answer
    """The final answer of a text; None if there is none. Default: what `Answer:` is followed by."""
    gold: Callable[[str, str], str | None] | None = None
    """The gold answer, from what the data set states and the question; None if it is of another
    kind. Default: what `extract` finds in it, alone or in an answer line."""

    def answer_in(self, text: str) -> str | None:
        """The final answer of a text; None if there is none, or looking for it failed."""
        try:
            return self.extract(text)
        except UncheckedError as error:
            _say_once(error)
            return None

    def grade(self, text: str, gold: str, question: str = "") -> Graded:
        r"""Find the final answer of a completion and tell whether it is right.

        >>> answer_kind("number").grade("Step 1: 48 / 2 = 24\nAnswer: 24", "24").right
        True
        """
        answer = None
        try:
            answer = self.extract(text)
            return Graded(answer, answer is not None and self.match(answer, gold, question))
        except UncheckedError as error:
            _say_once(error)
            return Graded(answer, False, error.summary)

    def compare(self, answer: str, gold: str, question: str = "") -> bool:
        """Whether two answers to a question are the same; False if that cannot be found out."""
        try:
            return self.match(answer, gold, question)
        except UncheckedError as error:
            _say_once(error)
            return False

    def read_gold(self, stated: str, question: str) -> str | None:
        """The gold answer that a data set states, as it is taught; None if it is of another kind.

        Raises `UncheckedError` if that cannot be found out.
        """
        if self.gold:
            return self.gold(stated, question)
        return self.extract(stated) or self.extract(f"Answer: {stated}")


answer_kinds: Registry[Callable[[], AnswerKind]] = Registry("kind of answer")
"""Functions without arguments that return an `AnswerKind`."""


def answer_kind(name: str) -> AnswerKind:
    """Resolve the name of a registered answer kind or of a user function.

    A user's functions are called in a process of their own, which ends those that hang: what they
    were to check counts as wrong then, and also where they raise.

    Raises `UserError` if a user function cannot be loaded or returns another type.
    """
    if not is_own(name):
        return answer_kinds.find(name)()
    return _own(name, load_own(name))


@functools.lru_cache(maxsize=16)
def _own(name: str, make: Callable[[], AnswerKind]) -> AnswerKind:
    """Cached until the file changes: then, `load_own` gives another function."""
    kind = returned(name, make(), AnswerKind)
    returned(name, kind.form, str)
    process = CheckingProcess(name, name)

    return replace(
        kind,
        match=functools.partial(process.asks, "match"),
        extract=functools.partial(process.text, "extract"),
        gold=functools.partial(process.text, "gold") if kind.gold else None,
    )


_said: set[str] = set()


def _say_once(error: UncheckedError) -> None:
    """Warn about the first answer that could not be checked for a reason."""
    if error.summary not in _said:
        _said.add(error.summary)
        logger.warning("%s; such an answer counts as wrong (this is said once)", error)
