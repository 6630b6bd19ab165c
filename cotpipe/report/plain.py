"""Text of others made visible: nothing in it moves a cursor, hides, or turns the line around."""

import re

# Control characters but for tab and newline, marks of writing direction, separators of lines and
# paragraphs, and halves of characters, which no file can hold.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def visible(text: str) -> str:
    r"""The text with its control characters written out.

    >>> print(visible("red: \x1b[31m, back: \r, turned: \u202e"))
    red: \x1b[31m, back: \x0d, turned: \u202e
    """
    return _INVISIBLE.sub(_written_out, text.replace("\r\n", "\n"))


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
