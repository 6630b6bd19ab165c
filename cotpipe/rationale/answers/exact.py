"""The kind `exact`: a short text that has to be the gold answer's, whatever its case and spaces."""

import unicodedata

from cotpipe.rationale.answers.kind import AnswerKind, answer_kinds
from cotpipe.rationale.answers.stated import one_line, stated_answer


def same_text(answer: str, gold: str) -> bool:
    """Whether two texts are equal but for Unicode forms (NFKC), case, and white space.

    >>> same_text("New  York", "new york"), same_text("ﬁve", "FIVE"), same_text("five", "5")
    (True, True, False)
    """
    return _normalised(answer) == _normalised(gold)


def _normalised(text: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


EXACT = AnswerKind(
    form="short answer",
    match=lambda answer, gold, _question: same_text(answer, gold),
    gold=lambda stated, _question: stated_answer(stated) or one_line(stated),
)


@answer_kinds.register("exact")
def exact() -> AnswerKind:
    """A short text, compared without regard to case, white space and Unicode forms."""
    return EXACT
