r"""The kind `math`: expressions, intervals, sets, tuples and equations, in LaTeX or plain notation.

Equal texts and numbers are compared here; what needs algebra is asked of the library math-verify,
in a process that ends where a comparison takes too long (`9^{9^{9^{9}}}`).
"""

import functools
import re
import unicodedata

from cotpipe.rationale.answers.kind import AnswerKind, answer_kinds
from cotpipe.rationale.answers.number import answers_match, whole_number
from cotpipe.rationale.answers.process import CheckingProcess, UncheckedError
from cotpipe.rationale.answers.stated import one_line, stated_answer

_MEMORY = 4 * 2**30  # address space; sympy and its libraries take a sixth of it
_algebra = CheckingProcess(
    "cotpipe.rationale.answers.equivalence:equivalence", "the kind of answers 'math'", _MEMORY
)
_MAX_DEPTH = 12
"""More brackets within brackets keep a parser busy for seconds, and no answer has them."""

_SYMBOLS = str.maketrans({
    "−": "-", "⁄": "/", "×": r"\times ", "·": r"\cdot ", "÷": "/", "π": r"\pi ", "∞": r"\infty ",
    "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "≤": r"\le ", "≥": r"\ge ",
    "≠": r"\neq ", "±": r"\pm ", "°": r"^\circ ",
})  # fmt: skip
_TEXT = re.compile(r"\$?\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}\$?")
_MARKUP = re.compile(r"\\?\$|(?<!\\)\\[()\[\]!,;: ]|\\(?:left|right|displaystyle)(?![A-Za-z])|~")
_FUNCTION = re.compile(
    r"(?<![\\A-Za-z])(?:(?:arc)?(?:sin|cos|tan)h?|cot|sec|csc|log|ln|exp|pi)(?![A-Za-z])"
)
_INFINITY = re.compile(r"(?<![\\A-Za-z])(?:infinity|inf|oo)(?![A-Za-z])")
_SPACES = re.compile(r"(?<=[^\w\s\\,.]) | (?=[^\w\s\\])")
_COMMAND = re.compile(
    r"\\(?:text|mathrm|mathbf|textbf|operatorname|begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+"
)
_WORD = re.compile(r"(?<![A-Za-z])(?!sqrt(?![A-Za-z]))[A-Za-z]{4,}")
_NOT_A_NUMBER = re.compile(r"\d\.\d+\.\d")  # which algebra would take for a product
_UNIT = re.compile(
    r"(?P<number>.*\d)\s+(?:[A-Za-z]{4,}|[kcm]m|k?g|ft|in|lbs?|oz|m?l|hrs?|min|mph)(?:[ ./^2-3A-Za-z]*)"
)


def expression_in(line: str) -> str | None:
    r"""An answer of one line as an expression in one notation; None if it is none.

    >>> expression_in(r"$\dfrac{1}{2} + x²$"), expression_in("1,250 apples"), expression_in("even")
    ('\\frac{1}{2}+x^{2}', '1250', None)
    """
    text = line if line.isascii() else "".join(map(_plain, line)).translate(_SYMBOLS)
    if words := _TEXT.fullmatch(text):
        text = words.group(1)
    text = _MARKUP.sub(" ", text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac"))
    text = _INFINITY.sub(r"\\infty", _FUNCTION.sub(r"\\\g<0>", text.replace("**", "^")))
    text = re.sub(r"√\s*\(", "sqrt(", text)
    text = re.sub(r"√\s*(\w+)", r"\\sqrt{\1}", text)
    text = _SPACES.sub("", " ".join(text.split()))
    if number := whole_number(text):
        return number
    if (measured := _UNIT.fullmatch(text)) and (number := whole_number(measured["number"])):
        return number
    if (
        not text
        or _too_deep(text)
        or _NOT_A_NUMBER.search(text)
        or _WORD.search(_COMMAND.sub(" ", text))
    ):
        return None
    return one_line(text)


def _too_deep(text: str) -> bool:
    """Whether brackets are nested too deeply, or braces not balanced."""
    depth = braces = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        braces += (character == "{") - (character == "}")
        if depth > _MAX_DEPTH or braces < 0:
            return True
    return braces != 0


def _plain(character: str) -> str:
    """A character in plain notation: digits in ASCII, raised and lowered ones as LaTeX."""
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    kind, _, _ = unicodedata.decomposition(character).partition(" ")
    normal = unicodedata.normalize("NFKC", character)
    return {"<super>": f"^{{{normal}}}", "<sub>": f"_{{{normal}}}", "<fraction>": f" {normal}"}.get(
        kind, normal
    )


def _extract(text: str) -> str | None:
    stated = stated_answer(text)
    return expression_in(stated) if stated else None


def _gold(stated: str, _question: str) -> str | None:
    line = stated_answer(stated) or one_line(stated)
    gold = expression_in(line) if line else None
    if gold is None or whole_number(gold):
        return gold
    return gold if _algebra.asks("reads", gold) else None


def _match(answer: str, gold: str, _question: str) -> bool:
    """Whether math-verify, or a comparison of texts and numbers, takes two expressions as equal.

    Its comparison is not symmetric by design: the interval `(1,2)` answers where the gold answer is
    `1<x<2`, which may be the question itself, but not the other way round.
    """
    if answer == gold:
        return True
    if (left := whole_number(answer)) and (right := whole_number(gold)):
        return answers_match(left, right)
    verdict = _compare(answer, gold)
    if isinstance(verdict, UncheckedError):
        raise verdict
    return verdict


@functools.lru_cache(maxsize=20_000)
def _compare(answer: str, gold: str) -> bool | UncheckedError:
    """Cached with failures: what has hung once would hang again."""
    try:
        return _algebra.asks("same", answer, gold)
    except UncheckedError as error:
        return error


MATH = AnswerKind(form="expression", match=_match, extract=_extract, gold=_gold)


@answer_kinds.register("math")
def math() -> AnswerKind:
    """An expression, interval, set, tuple or equation, compared by its value."""
    return MATH
