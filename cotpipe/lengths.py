"""The one place that says how long a text is: in words, or in the student's tokens."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Length = Callable[[str], int]


def count_words(text: str) -> int:
    """How many words a text has: runs of characters without whitespace."""
    return len(text.split())


def length_in(unit: Literal["words", "tokens"], tokenizer: "PreTrainedTokenizerBase") -> Length:
    """The function that measures a text in `unit`; tokens are the student's, without special ones."""
    if unit == "words":
        return count_words
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))
