"""The pages of the documentation, and the command lines in them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.helpers.repository import ROOT

PAGES = sorted(
    page for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md") for page in ROOT.glob(pattern)
)


def tokens(page: Path) -> Iterator[Token]:
    """All tokens of a page, those within paragraphs, too."""
    for token in MarkdownIt("gfm-like", {"linkify": False}).parse(page.read_text()):
        yield token
        yield from token.children or ()


def command_lines(page: Path) -> Iterator[tuple[str, bool]]:
    """The `cotpipe` command lines of a page, and whether it is one to type in, not a mere mention."""
    for token in tokens(page):
        if token.type in ("code_block", "fence"):
            for line in token.content.replace("\\\n", " ").splitlines():
                yield line, True
        elif token.type == "code_inline":
            yield token.content, False


def arguments_of(line: str) -> list[str] | None:
    """What stands behind `cotpipe`, up to a pipe or the like; None if the line calls something else."""
    if not re.match(r"\s*(\$ )?(\w+=\S* )*(\S*/)?cotpipe( |$)", line):
        return None
    words = shlex.split(re.split(r" (?:[|>&;]|&&|2>)", line)[0], comments=True)
    return words[[Path(word).name for word in words].index("cotpipe") + 1 :]
