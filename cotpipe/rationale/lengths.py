"""Text length, in words or in the student's tokens."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Length = Callable[[str], int]


def count_words(text: str) -> int:
    """The number of whitespace-separated words in a text."""
    return len(text.split())


def length_in(unit: Literal["words", "tokens"], tokenizer: "PreTrainedTokenizerBase") -> Length:
    """The function that measures length in `unit`; tokens exclude special tokens."""
    if unit == "words":
        return count_words
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))
