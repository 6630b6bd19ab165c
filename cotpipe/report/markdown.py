"""Text of problems, models and files in Markdown: shown as it is, whatever it looks like."""

import re

from cotpipe.report.plain import visible

_MARKS = re.compile(r"[\\`*_\[\]<|~$&#@]")
_LEADING = re.compile(r"^(?:>|[-+=:](?=[\s=:-]|$))")
_NUMBERED = re.compile(r"^(\d{1,9})([.)])(?=\s|$)")
_ADDRESS = re.compile(r":(?=//)|(?<=\bwww)\.", re.IGNORECASE)


class Markdown(str):
    """Text that is Markdown already, so that it is not escaped."""

    __slots__ = ()


def escape(text: str) -> Markdown:
    r"""Text as one line of Markdown that shows it: in a paragraph, heading, list or table cell.

    Pictures, links, HTML, tables, headings, emphasis, code and formulas in it stay what they are: text.

    >>> print(escape("![x](figure1.png) costs *$5*"))
    !\[x\](figure1.png) costs \*\$5\*
    """
    line = " ".join(visible(text).split())
    line = _MARKS.sub(r"\\\g<0>", line)
    line = _ADDRESS.sub(r"\\\g<0>", line)
    line = _NUMBERED.sub(r"\1\\\2", line)
    return Markdown(_LEADING.sub(r"\\\g<0>", line))


def quote(text: str) -> Markdown:
    """Text as a block quotation, line by line."""
    shown = visible(text).strip() or "(nothing)"
    return Markdown("\n".join(f"> {escape(line)}".rstrip() for line in shown.split("\n")))


def code(text: str) -> Markdown:
    """Text as a code span; not for table cells, where a vertical bar would end it."""
    line = " ".join(visible(text).split())
    if not line:
        return Markdown()
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    padded = f" {line} " if "`" in (line[0], line[-1]) else line
    return Markdown(f"{fence}{padded}{fence}")
