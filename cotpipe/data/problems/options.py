"""The options of a multiple-choice row, in the forms in which data sets have them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import index
from typing import Any, Self

_LETTERS = "ABCDE"
_MARK = re.compile(r"\s*[(\[]?([A-Ea-e])[).:\]]+\s*")


@dataclass(frozen=True)
class Options:
    """The texts of the options, and the label of each in the data set, such as `A` or `1`."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]

    @classmethod
    def of(cls, value: Any) -> Self | None:
        """Read a value of a column; None if it does not hold two to five options.

        It is a list of texts (perhaps marked, as `A)21`), a mapping from labels to texts, or, as in
        ARC, a mapping with the lists `text` and `label`.

        >>> Options.of(["A)21", "B)22"]) == Options.of({"text": ["21", "22"], "label": ["A", "B"]})
        True
        """
        labels: Iterable[Any] = _LETTERS
        if isinstance(value, Mapping):
            listed = {"text", "label"} <= value.keys()
            labels = value["label"] if listed else value.keys()
            value = value["text"] if listed else value.values()
        elif isinstance(value, str) or not isinstance(value, Iterable):
            return None
        texts = [str(text).strip() for text in value]
        marks = [_MARK.match(text) for text in texts]
        if [mark and mark.group(1).upper() for mark in marks] == list(_LETTERS[: len(texts)]):
            texts = [text[mark.end() :] for text, mark in zip(texts, marks, strict=True) if mark]
        if not 2 <= len(texts) <= len(_LETTERS):
            return None
        named = zip(labels, texts, strict=False)
        return cls(tuple(texts), tuple(str(label).strip() for label, _ in named))

    def below(self, question: str) -> str:
        r"""The question with the options below, a line each.

        >>> Options(("red", "blue"), ("1", "2")).below("Which?")
        'Which?\nA) red\nB) blue'
        """
        lines = [f"{letter}) {text}" for letter, text in zip(_LETTERS, self.texts, strict=False)]
        return "\n".join([question, *lines])

    def letter(self, stated: Any) -> str:
        """The letter of a gold answer that is a label or a position from 0; others stay as they are.

        >>> [Options(("red", "blue"), ("1", "2")).letter(stated) for stated in ("2", 0, "blue")]
        ['B', 'A', 'blue']
        """
        if not isinstance(stated, str | bool) and hasattr(stated, "__index__"):
            place = index(stated)
            return _LETTERS[place] if 0 <= place < len(self.texts) else str(stated)
        text = str(stated).strip()
        return _LETTERS[self.labels.index(text)] if text in self.labels else text
