"""The algebra behind the kind `math`, with math-verify; only ever called in a process of its own."""

import functools
import logging
import re
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify
from sympy import nan, zoo

_MIXED = re.compile(r"(?<![\w.])(\d+) (\d+)/(\d+)(?![\w.])")
_REPEATING = re.compile(r"(\d*)\.(\d*)\\overline\{(\d{1,12})\}")
_NEGATIVE_POWER = re.compile(r"\^-(\w)")


class Equivalence:
    """Reads and compares expressions. A call may take for ever, or all memory."""

    def reads(self, text: str) -> bool:
        """Whether a text is an expression as a whole."""
        return self._parse(text) is not None

    def same(self, answer: str, gold: str) -> bool:
        """Whether two expressions have the same value."""
        left, right = self._parse(gold), self._parse(answer)
        if left is None or right is None:
            return False
        return bool(verify(left, right, timeout_seconds=None, raise_on_error=True))

    @functools.lru_cache(maxsize=4096)  # noqa: B019  # there is one object, as long as the process
    def _parse(self, text: str) -> Any:
        """The sympy object of a whole text; None if there is none, or it is undefined (1/0)."""
        # Neither its search for plain expressions, which sympy would evaluate as Python, nor its
        # fallback: a part would count for the whole.
        found = parse(
            f"${as_latex(text)}$",
            extraction_config=[LatexExtractionConfig()],
            fallback_mode="no_fallback",
            parsing_timeout=None,
            raise_on_error=True,
        )
        return found[0] if found and not found[0].has(nan, zoo) else None


def as_latex(text: str) -> str:
    r"""Notations that math-verify misreads, in LaTeX: mixed and repeating numbers, negative powers.

    >>> as_latex("1 1/2"), as_latex(r"0.1\overline{6}"), as_latex("2^-3")
    ('(1+\\frac{1}{2})', '\\frac{15}{90}', '2^{-3}')
    """
    text = _MIXED.sub(r"(\1+\\frac{\2}{\3})", text)
    text = _REPEATING.sub(_as_fraction, text)
    return _NEGATIVE_POWER.sub(r"^{-\1}", text)


def _as_fraction(number: re.Match[str]) -> str:
    whole, once, repeated = number.groups()
    all_digits, before = int(f"{whole}{once}{repeated}"), int(f"{whole}{once}" or 0)
    denominator = int("9" * len(repeated) + "0" * len(once))
    return rf"\frac{{{all_digits - before}}}{{{denominator}}}"


def equivalence() -> Equivalence:
    """The object that the process calls; without the library's notes on time limits."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return Equivalence()
