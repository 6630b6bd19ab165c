"""The final answer of a text as it is written: after `Answer:`, `####` or in a box."""

import re
import unicodedata

MAX_ANSWER_CHARS = 300
"""How much text is read after the mark of an answer; a longer one is degenerate output."""
_MAX_TAIL = 20_000  # bounds the work of every pattern; the final answer is at the end of a text

_MARKER = re.compile(
    r"####|\\boxed\s{0,3}\{|\banswer[*_]{0,3}:|\banswer\s{1,3}is\b:?", re.IGNORECASE
)
_EDGES = " \t*_`"


def stated_answer(text: str) -> str | None:
    r"""What the last of `Answer:`, `####` and `\boxed{` is followed by, on one line; None without.

    `the answer is` counts where none of these stands. Markdown around the answer, a full stop at
    its end, and control characters are left out.

    >>> stated_answer("Step 1: It lies on the Seine.\nAnswer: **Paris**.")
    'Paris'
    >>> stated_answer(r"so it is \boxed{x^{2}}, as said.")
    'x^{2}'
    """
    tail = text[-_MAX_TAIL:]
    markers = [(match.start(), match.end(), match.group()) for match in _MARKER.finditer(tail)]
    explicit = [one for one in markers if not one[2].lower().startswith("answer i")]
    if not (chosen := explicit or markers):
        return None
    _, end, marker = chosen[-1]
    segment = tail[end : end + 4 * MAX_ANSWER_CHARS].lstrip()
    if marker.startswith("\\"):
        return one_line(boxed(segment))
    return one_line(segment.split("\n", 1)[0])


def one_line(text: str) -> str | None:
    """An answer on one line, without Markdown around it; None if it is empty or too long."""
    if not text.isprintable():
        text = "".join(_VISIBLE.get(unicodedata.category(one), one) for one in text)
    line = " ".join(text.split()).strip(_EDGES)
    line = line.rstrip(_EDGES + ".") or line
    return line if 0 < len(line) <= MAX_ANSWER_CHARS else None


_VISIBLE = {"Cc": " ", "Cf": "", "Cs": "", "Zl": " ", "Zp": " "}


def boxed(segment: str) -> str:
    """The content of a box whose brace was opened just before; all of it if it is never closed."""
    depth = 1
    for position, character in enumerate(segment):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return segment[:position]
    return segment
