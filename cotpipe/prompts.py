"""Every prompt of the project: what the student reads in each stage, at mining and at evaluation.

A prompt is a list of chat messages; the student's own chat template turns it into text wherever it is used, so
training and evaluation see one format. The bare question is the same prompt in all of them.
"""

from collections.abc import Sequence
from typing import TypedDict

from cotpipe.masks import PLACEHOLDER
from cotpipe.rationale import format_rationale

INSTRUCTION = "Solve step by step: lines 'Step 1: ...', then 'Answer: number'."


class Message(TypedDict):
    """One chat message."""

    role: str
    content: str


def question_prompt(question: str, instruction: str = INSTRUCTION) -> list[Message]:
    """The question alone: the teacher, evaluation, mining, and whatever a stage has unlearnt to need.

    An empty instruction leaves the system message out, as some reasoning models want it.
    """
    system = [Message(role="system", content=instruction)] if instruction else []
    return [*system, Message(role="user", content=question)]


def reconstruction_prompt(question: str, shuffled_steps: Sequence[str | None]) -> list[Message]:
    """Stage 1: the steps in a wrong order and without numbers; None is a masked one."""
    lines = [f"- {step if step is not None else PLACEHOLDER}" for step in shuffled_steps]
    return _with_help(question, "Steps, shuffled, some hidden:", "\n".join(lines))


def completion_prompt(question: str, steps: Sequence[str | None]) -> list[Message]:
    """Stage 2: the steps in their order; None is a masked one."""
    lines = [f"Step {k}: {step if step is not None else PLACEHOLDER}" for k, step in enumerate(steps, start=1)]
    return _with_help(question, "Steps, some hidden:", "\n".join(lines))


def rewriting_prompt(question: str, steps: Sequence[str], answer: str) -> list[Message]:
    """Stage 3: the teacher's whole rationale, to be written again shorter."""
    return _with_help(question, "A right but long solution; write a shorter one:", format_rationale(steps, answer))


def restructuring_prompt(question: str, solution: str, answer: str) -> list[Message]:
    """For the teacher: a right solution without usable steps, to be written again in steps."""
    title = f"A right solution. Write it again as steps, one short line each, and end with 'Answer: {answer}':"
    return _with_help(question, title, solution)


def _with_help(question: str, title: str, body: str) -> list[Message]:
    return question_prompt(f"{question}\n\n{title}\n{body}")
