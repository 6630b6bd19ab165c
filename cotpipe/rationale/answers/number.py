"""The kind `number`: extracting and comparing numbers.

Safe for any model output: expressions are never evaluated (`9**9**9**9` is text, not a number),
every pattern runs in linear time, and only the end of a text is read.
"""

import re
from fractions import Fraction

from cotpipe.rationale.answers.kind import AnswerKind, answer_kinds
from cotpipe.rationale.answers.stated import MAX_ANSWER_CHARS, boxed

MAX_NUMBER_CHARS = 40
"""A longer number is degenerate output, not an answer."""

_MARKER = re.compile(
    r"####|\\boxed\s{0,3}\{|\banswer\b(?:\s{1,3}is\b)?[\s*_]{0,4}:?", re.IGNORECASE
)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_NOISE = re.compile(
    r"\\text\s*\{[^{}]*\}|\\[,;:!() \[\]]|\\?\$|€|£|[*_`](?![*\d])|(?<![\d*])[*_`]+"
)
_UNSIGNED = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_NUMBER = re.compile(
    rf"(?<![\w.])[-+]?\s?(?:[0-9]+\s+[0-9]+/[0-9]+|(?:{_UNSIGNED})(?:\s?/\s?[0-9]+(?:\.[0-9]+)?|[eE][-+]?[0-9]{{1,2}}\b)?)"
)
_OPERATOR_NEXT = re.compile(r"\s*(?:\*\*|[*^+×·÷/]|-|\\times|\\cdot|\\div)\s*\(?[-+]?[0-9]")


def extract_answer(text: str) -> str | None:
    r"""The final number of a text, or None if there is none.

    Looks after the last of `Answer:`, `####`, `\boxed{` and `the answer is`; without any of these,
    takes the last number. Strips thousands separators, currency, LaTeX and Markdown: the result is
    a plain integer, decimal, fraction or mixed number, as written.

    >>> extract_answer("Step 1: 48 / 2 = 24\nAnswer: $1,200 in all")
    '1200'
    >>> extract_answer(r"so it is \boxed{\frac{5}{8}}.")
    '5/8'
    """
    # Bounds the work of every pattern; the final answer is at the end of the text.
    tail = text[-20_000:]
    markers = list(_MARKER.finditer(tail))
    for marker in reversed(markers):
        segment = tail[marker.end() : marker.end() + MAX_ANSWER_CHARS].lstrip()
        segment = boxed(segment) if marker.group().startswith("\\") else segment.split("\n", 1)[0]
        if answer := _answer_in(segment):
            return answer
        if marker.group().endswith((":", "#", "{")):
            return None  # an explicit answer that is not a number; earlier numbers do not count
    numbers = _numbers(_plain(tail[-MAX_ANSWER_CHARS:]))
    return numbers[-1] if numbers else None


def answers_match(predicted: str | None, gold: str) -> bool:
    """Whether two answers are the same number, up to the rounding of decimals.

    The tolerance is relative, 1e-6, and never over a hundredth: whole numbers match exactly.

    >>> answers_match("0.50", "1/2"), answers_match("1,250", "1250"), answers_match(None, "3")
    (True, True, False)
    >>> answers_match("0.3333333", "1/3"), answers_match("2,880,001", "2,880,000")
    (True, False)
    """
    if predicted is None:
        return False
    left, right = _value(predicted), _value(gold)
    if left is None or right is None:
        return False
    return abs(left - right) <= min(abs(right) / 10**6, Fraction(1, 100))


NUMBER = AnswerKind(
    form="number",
    match=lambda answer, gold, _question: answers_match(answer, gold),
    extract=extract_answer,
    gold=lambda stated, _question: extract_answer(stated),
)


@answer_kinds.register("number")
def number() -> AnswerKind:
    """An integer, decimal, fraction or mixed number in any notation."""
    return NUMBER


def _answer_in(segment: str) -> str | None:
    """The number in a short answer text: after the last `=`, the leading number, else the last."""
    plain = _plain(segment).rsplit("=", 1)[-1].strip()
    leading = _NUMBER.match(plain)
    if leading and _OPERATOR_NEXT.match(plain, leading.end()):
        return None
    if leading:
        return _canonical(leading.group())
    numbers = _numbers(plain)
    return numbers[-1] if numbers else None


def _plain(segment: str) -> str:
    segment = (
        segment.replace("\u2212", "-").replace("{,}", ",").replace("\\!", "").replace(",\\", ",")
    )
    segment = _FRACTION.sub(r"\1/\2", segment)
    return _NOISE.sub(" ", segment)


def _numbers(plain: str) -> list[str]:
    found = (_canonical(match.group()) for match in _NUMBER.finditer(plain))
    return [number for number in found if number]


def _canonical(number: str) -> str | None:
    joined = (
        re.sub(r"(?<=[-+/])\s+|\s+(?=/)", "", number.strip()).replace(",", "").removeprefix("+")
    )
    return joined if len(joined) <= MAX_NUMBER_CHARS and _value(joined) is not None else None


def whole_number(text: str) -> str | None:
    r"""A text that is a number and nothing else, in plain notation; None for any other.

    >>> whole_number(r"\frac{5}{8}"), whole_number("1,250"), whole_number("5 + 3")
    ('5/8', '1250', None)
    """
    plain = _plain(text).strip() if len(text) <= MAX_ANSWER_CHARS else ""
    return _canonical(plain) if _NUMBER.fullmatch(plain) else None


def _value(number: str) -> Fraction | None:
    """The exact value of an integer, decimal, fraction or mixed number; None for anything else."""
    number = number.strip().replace(",", "")
    if len(number) > MAX_NUMBER_CHARS:
        return None
    whole, _, part = number.rpartition(" ")
    numerator, _, denominator = part.partition("/")
    try:
        value = Fraction(numerator) / Fraction(denominator or 1)
        return (
            value if not whole else Fraction(whole) + (-value if whole.startswith("-") else value)
        )
    except (ValueError, ZeroDivisionError):
        return None
