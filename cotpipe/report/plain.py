"""Text of others made visible: nothing in it moves a cursor, hides, or turns the line around.

Joiners and variation selectors stay between characters other than ASCII: scripts and emoji need them.
"""

import re

# Control characters but for tab and newline, marks of writing direction, separators of lines and
# paragraphs, halves of characters, which no file can hold, and what has no width: Unicode's
# Default_Ignorable_Code_Point.
_HIDDEN = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufff8"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# Scripts and emoji need these between their characters, and only there they stay.
_JOINERS, _SELECTORS = "[\u200c\u200d]", "[\ufe00-\ufe0f]"
_SHOWN = f"[^\x00-\x7f{_HIDDEN}\u200c\u200d\ufe00-\ufe0f]"
_INVISIBLE = re.compile(
    f"[{_HIDDEN}]"
    f"|(?<!{_SHOWN})(?<!{_SHOWN}\ufe0f){_JOINERS}|{_JOINERS}(?!{_SHOWN})"
    f"|(?<!{_SHOWN}){_SELECTORS}(?!\u20e3)"
)


def visible(text: str) -> str:
    r"""The text with its control characters, and those without a width, written out.

    >>> print(visible("red: \x1b[31m, back: \r, turned: \u202e"))
    red: \x1b[31m, back: \x0d, turned: \u202e
    """
    return _INVISIBLE.sub(_written_out, text.replace("\r\n", "\n"))


def cut(text: str, most: int) -> str:
    """The beginning of a text made visible, at most `most` characters, and how many are left out."""
    shown, left = visible(text[:most]).strip(), len(text) - most
    return f"{shown} … and {left} characters more" if left > 0 else shown


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
