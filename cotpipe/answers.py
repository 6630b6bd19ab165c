"""Final answers: finding the number in a text and comparing two numbers. The only such code in the project.

Nothing is ever evaluated (`9**9**9**9` is a text, not a number), every pattern is linear, and a text of any size
is looked at only around its last answer marker, so no model output can hang or exhaust the check.
"""

import re
from fractions import Fraction

MAX_ANSWER_CHARS = 300
"""How much text behind an answer marker, or at the end of a text without one, is read."""
MAX_NUMBER_CHARS = 40
"""A longer number is degenerate output, not an answer."""

_MARKER = re.compile(r"####|\\boxed\s{0,3}\{|\banswer\b(?:\s{1,3}is\b)?[\s*_]{0,4}:?", re.IGNORECASE)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_NOISE = re.compile(r"\\text\s*\{[^{}]*\}|\\[,;:!() \[\]]|\\?\$|€|£|[*_`](?![*\d])|(?<![\d*])[*_`]+")
_UNSIGNED = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_NUMBER = re.compile(
    rf"(?<![\w.])[-+]?\s?(?:[0-9]+\s+[0-9]+/[0-9]+|(?:{_UNSIGNED})(?:\s?/\s?[0-9]+(?:\.[0-9]+)?|[eE][-+]?[0-9]{{1,2}}\b)?)"
)
_OPERATOR_NEXT = re.compile(r"\s*(?:\*\*|[*^+×·÷/]|-|\\times|\\cdot|\\div)\s*\(?[-+]?[0-9]")


def extract_answer(text: str) -> str | None:
    r"""The final number of a text, or None where there is none.

    Looks behind the last of `Answer:`, `####`, `\boxed{` and `the answer is`; a text without any of these answers
    with its last number. Thousands separators, currency, LaTeX and Markdown are taken off: the result is a plain
    integer, decimal, fraction or mixed number, as written.

    >>> extract_answer("Step 1: 48 / 2 = 24\nAnswer: $1,200 in all")
    '1200'
    >>> extract_answer(r"so it is \boxed{\frac{5}{8}}.")
    '5/8'
    """
    # A long run of digits is bounded before any pattern sees it; only the end of the text can be the final answer.
    tail = text[-20_000:]
    markers = list(_MARKER.finditer(tail))
    for marker in reversed(markers):
        segment = tail[marker.end() : marker.end() + MAX_ANSWER_CHARS].lstrip()
        segment = _boxed(segment) if marker.group().startswith("\\") else segment.split("\n", 1)[0]
        if answer := _answer_in(segment):
            return answer
        if marker.group().endswith((":", "#", "{")):
            return None  # An explicit answer that is no number is wrong, however many numbers stand before it.
    numbers = _numbers(_plain(tail[-MAX_ANSWER_CHARS:]))
    return numbers[-1] if numbers else None


def answers_match(predicted: str | None, gold: str) -> bool:
    """Whether two answers are the same number: exactly, except that a decimal may be rounded (1e-6 relative).

    >>> answers_match("0.50", "1/2"), answers_match("1,250", "1250"), answers_match(None, "3")
    (True, True, False)
    """
    if predicted is None:
        return False
    left, right = _value(predicted), _value(gold)
    if left is None or right is None:
        return False
    return abs(left - right) <= Fraction(1, 10**6) * abs(right)


def _answer_in(segment: str) -> str | None:
    """The number that a short answer text states: what follows the last `=`, else a leading number, else the last."""
    plain = _plain(segment).rsplit("=", 1)[-1].strip()
    leading = _NUMBER.match(plain)
    if leading and _OPERATOR_NEXT.match(plain, leading.end()):
        return None
    if leading:
        return _canonical(leading.group())
    numbers = _numbers(plain)
    return numbers[-1] if numbers else None


def _boxed(segment: str) -> str:
    depth = 1
    for position, character in enumerate(segment):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return segment[:position]
    return segment


def _plain(segment: str) -> str:
    segment = segment.replace("\u2212", "-").replace("{,}", ",").replace("\\!", "").replace(",\\", ",")
    segment = _FRACTION.sub(r"\1/\2", segment)
    return _NOISE.sub(" ", segment)


def _numbers(plain: str) -> list[str]:
    found = (_canonical(match.group()) for match in _NUMBER.finditer(plain))
    return [number for number in found if number]


def _canonical(number: str) -> str | None:
    joined = re.sub(r"(?<=[-+/])\s+|\s+(?=/)", "", number.strip()).replace(",", "").removeprefix("+")
    return joined if len(joined) <= MAX_NUMBER_CHARS and _value(joined) is not None else None


def _value(number: str) -> Fraction | None:
    """The exact value of an integer, decimal, fraction or mixed number; None for anything else."""
    number = number.strip().replace(",", "")
    if len(number) > MAX_NUMBER_CHARS:
        return None
    whole, _, part = number.rpartition(" ")
    numerator, _, denominator = part.partition("/")
    try:
        value = Fraction(numerator) / Fraction(denominator or 1)
        return value if not whole else Fraction(whole) + (-value if whole.startswith("-") else value)
    except (ValueError, ZeroDivisionError):
        return None
