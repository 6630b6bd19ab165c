r"""The rationale format: writing and parsing chains of thought.

Step 1: Natalia sold 48 clips in April.
Step 2: In May she sold 48 / 2 = 24.
Answer: 72
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cotpipe.rationale.answers import NUMBER, AnswerKind

MAX_RATIONALE_CHARS = 100_000
"""Longer texts are truncated before parsing; no useful rationale is that long."""

# Models also write `**Step 1:**`, `### Step 1.` and `step 1 -`; the last step may hold the answer.
_STEP = re.compile(
    r"^[ \t#*_>-]{0,8}step[ \t]{0,3}[0-9]{1,4}[ \t*_]{0,4}[:.)-][*_]{0,4}",
    re.IGNORECASE | re.MULTILINE,
)
_ANSWER = re.compile(
    r"(?:^|[\s.*])[*_#]{0,6}(?:final[ ]{1,2})?answer[*_]{0,3}:|####", re.IGNORECASE
)
_STEP_LINE = re.compile(r"^Step [0-9]{1,4}: *\S", re.MULTILINE)
_ANSWER_LINE = re.compile(r"^Answer: *\S", re.MULTILINE)
_STEP_ANYWHERE = re.compile(r"Step [0-9]{1,4}:")
_LINE_OF_ANSWER = r"^(?:[ \t#*_>-]{0,8}(?:final[ ]{1,2})?answer[*_]{0,3}:|####)"
_FINAL_NUMBER = re.compile(
    _LINE_OF_ANSWER + r"[^\n0-9]{0,80}[0-9][^\n]*(?=\n)", re.IGNORECASE | re.MULTILINE
)
_FINAL_LINE = re.compile(
    _LINE_OF_ANSWER + r"[ \t*_]*[^\s*_][^\n]*(?=\n)", re.IGNORECASE | re.MULTILINE
)
_CALCULATOR = re.compile(r"<<[^<>]{0,200}>>")


@dataclass(frozen=True)
class Rationale:
    """A chain of thought: its ordered rationale steps (unnumbered, one line each) and answer."""

    steps: list[str]
    answer: str | None
    labelled: bool  # whether the text has `Step k:` labels


def parse_rationale(text: str, answers: AnswerKind = NUMBER) -> Rationale:
    """Parse the rationale of a teacher, student or data set; accepts any text without raising.

    Text before the first `Step k:` is dropped. Without step labels, every non-empty line is a step.
    GSM8K's calculator annotations (`<<48/2=24>>`) are removed. `answer` is None if the text
    contains no answer of the given kind.
    """
    text = text[:MAX_RATIONALE_CHARS]
    return parse_steps(text, answers.answer_in(text))


def parse_steps(text: str, answer: str | None) -> Rationale:
    """Parse the rationale of a text whose final answer is known."""
    text = text[:MAX_RATIONALE_CHARS]
    body = _CALCULATOR.sub("", text)
    labels = list(_STEP.finditer(body))
    if labels:
        ends = [label.start() for label in labels[1:]] + [len(body)]
        pieces = [body[label.end() : end] for label, end in zip(labels, ends, strict=True)]
        pieces[-1] = _before_answer(pieces[-1])
    else:
        pieces = _before_answer(body).split("\n")
    steps = [" ".join(piece.split()) for piece in pieces]
    return Rationale([step for step in steps if step], answer, labelled=bool(labels))


def split_thinking(text: str) -> tuple[str, str]:
    r"""Split a reasoning model's output into its thinking (`<think> ... </think>`) and its answer.

    Some chat templates open the tag in the prompt, so the text may contain only the closing tag.
    Everything after an unclosed opening tag is thinking.

    >>> split_thinking("<think>48 / 2 ...</think>\nStep 1: 48 / 2 = 24")
    ('48 / 2 ...', 'Step 1: 48 / 2 = 24')
    """
    before, closed, after = text.rpartition("</think>")
    thoughts, visible = (before, after) if closed else ("", text)
    said, opened, unclosed = visible.partition("<think>")
    thoughts = thoughts.replace("<think>", "").replace("</think>", "")
    return (thoughts + unclosed).strip(), said.strip() if closed or opened else text


def until_answer(text: str, answers: AnswerKind = NUMBER) -> str:
    r"""Cut a text after its first answer line; anything that follows is irrelevant.

    The line of a number has one: a model may write `Answer: we first add` before.

    >>> until_answer("Step 1: 2 + 2 = 4\nAnswer: 4\n\nQuestion: what is next?")
    'Step 1: 2 + 2 = 4\nAnswer: 4'
    """
    line = _FINAL_NUMBER if answers is NUMBER else _FINAL_LINE
    found = line.search(text[:MAX_RATIONALE_CHARS])
    return text[: found.end()] if found else text


def format_rationale(steps: Sequence[str], answer: str) -> str:
    """Format rationale steps and an answer as the student's target text."""
    lines = [f"Step {number}: {step}" for number, step in enumerate(steps, start=1)]
    return "\n".join([*lines, f"Answer: {answer}"])


def has_valid_format(text: str) -> bool:
    """Whether a text has a `Step k:` line followed by an `Answer:` line.

    Stricter than the published rewards (`has_published_format`), which take both anywhere.
    """
    text = text[:MAX_RATIONALE_CHARS]
    step = _STEP_LINE.search(text)
    return step is not None and _ANSWER_LINE.search(text, step.end()) is not None


def has_published_format(text: str) -> bool:
    """Whether `Step k:` and `Answer:` stand anywhere in a text, as the published rewards ask.

    >>> has_published_format("So: Step 1: 2 + 2 = 4. Answer: 4")
    True
    """
    return "Answer:" in text and _STEP_ANYWHERE.search(text) is not None


def count_published_steps(text: str) -> int:
    """The number of `Step k:` anywhere in a text, as the published rewards count."""
    return len(_STEP_ANYWHERE.findall(text))


def _before_answer(text: str) -> str:
    matches = list(_ANSWER.finditer(text))
    return text[: matches[-1].start()] if matches else text
