"""Kinds of answers: finding the final answer of a text, and telling whether it is right.

Everything that asks "is this right" asks an `AnswerKind`: reading problems, verification of the
teacher's rationales, rewards, mining, attempts, validation and evaluation.
"""

# ruff: noqa: I001  # in the order in which recipes offer them

from cotpipe.rationale.answers.kind import AnswerKind, Graded, answer_kind, answer_kinds
from cotpipe.rationale.answers.number import NUMBER, answers_match, extract_answer
from cotpipe.rationale.answers.expression import MATH
from cotpipe.rationale.answers.exact import EXACT
from cotpipe.rationale.answers.choice import CHOICE
from cotpipe.rationale.answers.process import UncheckedError

__all__ = [
    "CHOICE",
    "EXACT",
    "MATH",
    "NUMBER",
    "AnswerKind",
    "Graded",
    "UncheckedError",
    "answer_kind",
    "answer_kinds",
    "answers_match",
    "extract_answer",
]
