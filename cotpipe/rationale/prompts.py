"""All prompts: for each training stage, mining, evaluation, and the teacher.

A prompt is a list of chat messages. The student's chat template renders it everywhere, so training
and evaluation use the same format; the plain question is the same prompt in both.
"""

from collections.abc import Sequence
from typing import TypedDict

from cotpipe.rationale.format import format_rationale
from cotpipe.rationale.masks import PLACEHOLDER


def instruction_for(form: str) -> str:
    """The system message before every question, for an answer form such as `number`."""
    return f"Solve step by step: lines 'Step 1: ...', then 'Answer: {form}'."


INSTRUCTION = instruction_for("number")
_SHUFFLED = "Steps, shuffled, some hidden:"
_HIDDEN = "Steps, some hidden:"
_SHORTEN = "A right but long solution; write a shorter one:"


class Message(TypedDict):
    """One chat message."""

    role: str
    content: str


def question_prompt(question: str, instruction: str = INSTRUCTION) -> list[Message]:
    """The plain question, for the teacher, evaluation, mining, and training rows without hints.

    An empty instruction omits the system message, as some reasoning models require.
    """
    system = [Message(role="system", content=instruction)] if instruction else []
    return [*system, Message(role="user", content=question)]


def reconstruction_prompt(
    question: str, shuffled_steps: Sequence[str | None], instruction: str = INSTRUCTION
) -> list[Message]:
    """Stage 1: the rationale steps, shuffled and unnumbered; None is a masked step."""
    lines = [f"- {step if step is not None else PLACEHOLDER}" for step in shuffled_steps]
    return _with_help(question, _SHUFFLED, "\n".join(lines), instruction)


def completion_prompt(
    question: str, steps: Sequence[str | None], instruction: str = INSTRUCTION
) -> list[Message]:
    """Stage 2: the rationale steps in order; None is a masked step."""
    lines = [
        f"Step {k}: {step if step is not None else PLACEHOLDER}"
        for k, step in enumerate(steps, start=1)
    ]
    return _with_help(question, _HIDDEN, "\n".join(lines), instruction)


def hinted_prompt(
    question: str, steps: Sequence[str], shown: int, instruction: str = INSTRUCTION
) -> list[Message]:
    """The question with the first steps of a rationale; with none of them, the bare question.

    Args:
        question: The problem's question.
        steps: Rationale steps of the teacher.
        shown: How many of them are shown.
        instruction: System message; empty for none.
    """
    if not shown:
        return question_prompt(question, instruction)
    visible = [step if place < shown else None for place, step in enumerate(steps)]
    return completion_prompt(question, visible, instruction)


def rewriting_prompt(
    question: str, steps: Sequence[str], answer: str, instruction: str = INSTRUCTION
) -> list[Message]:
    """Stage 3: the teacher's complete rationale, to be rewritten more concisely.

    Args:
        question: The problem's question.
        steps: Rationale steps of the teacher.
        answer: The gold answer.
        instruction: System message; empty for none.
    """
    return _with_help(question, _SHORTEN, format_rationale(steps, answer), instruction)


def restructuring_prompt(
    question: str, solution: str, answer: str, instruction: str = INSTRUCTION
) -> list[Message]:
    """For the teacher: a correct solution without usable steps, to be rewritten as steps.

    Args:
        question: The problem's question.
        solution: The solution that the teacher gave before.
        answer: The gold answer.
        instruction: System message; empty for none.
    """
    title = (
        "A right solution. Write it again as steps, one short line each, "
        f"and end with 'Answer: {answer}':"
    )
    return _with_help(question, title, solution, instruction)


def question_of(prompt: Sequence[Message]) -> str:
    """The bare question of a student's prompt, without the help that may follow it."""
    asked = prompt[-1]["content"]
    for title in (_SHUFFLED, _HIDDEN, _SHORTEN):
        asked = asked.partition(f"\n\n{title}\n")[0]
    return asked


def _with_help(question: str, title: str, body: str, instruction: str) -> list[Message]:
    return question_prompt(f"{question}\n\n{title}\n{body}", instruction)
