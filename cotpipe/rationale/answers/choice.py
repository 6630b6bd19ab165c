"""The kind `choice`: one of the options A to E that the question lists."""

import re

from cotpipe.rationale.answers.exact import same_text
from cotpipe.rationale.answers.kind import AnswerKind, answer_kinds
from cotpipe.rationale.answers.stated import one_line, stated_answer

_LETTERS = "ABCDE"
_OPTION = re.compile(r"(?<![^\s,;(\[{])(?:\\textbf\{)?[(\[]?([A-E])\s?[).:\]]+\}?")
_LEAD = re.compile(
    r"(?:the )?(?:correct |right |best |final )?(?:answer|option|choice)(?: is)?:?\s+(?=\S)",
    re.IGNORECASE,
)
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}")
_LETTER = re.compile(r"[(\[]?([A-Ea-e])\s?[)\].:]*")
_LABELLED = re.compile(r"[(\[]?([A-Ea-e])\s?(?:[)\].:]+|[-–—,]|(?=\())\s*(.+)")
_REASON = re.compile(r",?\s+(?:because|since)\b.*", re.IGNORECASE | re.DOTALL)
_OTHER = re.compile(r"(?<![A-Za-z])[A-E](?![A-Za-z])")


def options_in(question: str) -> dict[str, str]:
    r"""The texts of a question's options by letter; empty if it lists fewer than two.

    An option is marked `A)`, `(A)`, `A.` or `A:`. Where marks begin lines, only those count: texts of
    options may name others, as in `(D) both (A) and (B)`. The last list counts.

    >>> options_in("What is it?\nA) red\nB) dark blue")
    {'A': 'red', 'B': 'dark blue'}
    """
    found = list(_OPTION.finditer(question))
    leading = [mark for mark in found if not question[: mark.start()].rpartition("\n")[2].strip()]
    marks: list[re.Match[str]] = []
    for mark in leading if len(leading) > 1 else found:
        if mark.group(1) == "A":
            marks = [mark]
        elif marks and mark.group(1) == _LETTERS[len(marks) % len(_LETTERS)]:
            marks.append(mark)
    if len(marks) < 2:
        return {}
    ends = [mark.start() for mark in marks[1:]] + [len(question)]
    return {
        mark.group(1): question[mark.end() : end].strip().split("\n", 1)[0].strip(" ,;$\\")
        for mark, end in zip(marks, ends, strict=True)
    }


def letter_of(answer: str, question: str) -> str | None:
    r"""The option that an answer names, by its letter or its text; None if that is unclear.

    >>> question = "Which one?\nA) red\nB) dark blue"
    >>> [letter_of(text, question) for text in ("(b).", "Dark blue", "B) dark blue", "A or B", "C")]
    ['B', 'B', 'B', None, None]
    """
    options, answer = options_in(question), _unwrapped(answer)
    named = [letter for letter, text in options.items() if same_text(text, answer)]
    if alone := _LETTER.fullmatch(_REASON.sub("", answer)):
        letter = alone.group(1).upper()
    elif named:
        return named[0] if len(named) == 1 else None
    elif labelled := _LABELLED.fullmatch(answer):
        letter, text = labelled.group(1).upper(), labelled.group(2)
        if _is_another(text, letter, options):
            return None
    else:
        return None
    return letter if not options or letter in options else None


def _unwrapped(answer: str) -> str:
    return _LEAD.sub("", _WRAPPED.sub(r"\1", answer), count=1).strip(" $*_`")


def _is_another(text: str, letter: str, options: dict[str, str]) -> bool:
    """Whether what follows a letter names another option."""
    bare = text.strip(" ()")
    named = [
        one for one, option in options.items() if same_text(option, text) or same_text(option, bare)
    ]
    return letter not in named if named else any(one != letter for one in _OTHER.findall(text))


def _extract(text: str) -> str | None:
    """The letter where it stands alone, else the answer as it is: its text may name an option."""
    stated = stated_answer(text)
    alone = _LETTER.fullmatch(_unwrapped(stated)) if stated else None
    return alone.group(1).upper() if alone else stated


def _gold(stated: str, question: str) -> str | None:
    line = stated_answer(stated) or one_line(stated)
    return letter_of(line, question) if line else None


def _match(answer: str, gold: str, question: str) -> bool:
    letter = letter_of(answer, question)
    return letter is not None and letter == letter_of(gold, question)


CHOICE = AnswerKind(form="letter", match=_match, extract=_extract, gold=_gold)


@answer_kinds.register("choice")
def choice() -> AnswerKind:
    """One of the options A to E of the question, named by letter or by its text."""
    return CHOICE
