"""What problems, models and files contain is printed as it is; it gives the terminal no orders."""

from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.tree import Tree

from cotpipe.report.plain import visible
from flows.cli.results import show_rows
from flows.cli.terminal import Terminal, styled
from tests.helpers.flow_runs import assert_one_line_error, cotpipe

TEXTS = st.text(
    st.one_of(st.sampled_from("[]/\\:;'\"#=bolredmi \x1b\x07\r\x08"), st.characters(codec="utf-8"))
)


def printed(*things: object) -> str:
    out = StringIO()
    console = Terminal(file=out, width=10_000, force_terminal=True, color_system=None)
    for thing in things:
        console.print(thing)
    return out.getvalue()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[red]alert[/red]", "[red]alert[/red]"),
        ("[/]", "[/]"),  # rich ends with a MarkupError
        ("[link=http://a.b]click[/link]", "[link=http://a.b]click[/link]"),
        (":smile: 1 / 2", ":smile: 1 / 2"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("right\rwrong", "right\\x0dwrong"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\u202eturned", "\\u202eturned"),
    ],
)
def test_markup_and_control_characters_are_text(text, shown):
    table = Table(text, title=text)
    table.add_row(text)
    tree = Tree(text)
    tree.add(styled("plain ", (text, "bold")))
    assert printed(text, table, tree).count(shown) == 6
    assert "\x1b" not in printed(text, table)


@given(text=TEXTS)
def test_any_text_is_printed_as_it_is(text):
    line = visible(text).replace("\n", " ").replace("\t", " ")
    assert printed(line) == line + "\n"
    out = printed(text)
    assert not {char for char in out if ord(char) < 0x20} - {"\n", "\t"}


def test_a_query_shows_what_is_in_the_cells():
    out = StringIO()
    rows: list[list[object]] = [["[/]"], ["\x1b[31m"], [None]]
    show_rows(["[b]answer[/b]"], rows, Terminal(file=out, width=200), more=False)
    for part in ("[b]answer[/b]", "[/]", "\\x1b[31m"):
        assert part in out.getvalue()


def test_an_error_quotes_what_is_wrong_without_obeying_it(tmp_path):
    done = cotpipe("show", "nobody\x1b[2J", "--store", str(tmp_path))
    assert_one_line_error(done, 2, "\\x1b[2J")
    done = cotpipe("sql", "select '[/]' as \"[b]\", chr(27) as escape", "--store", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "[/]" in done.stdout
    assert "\\x1b" in done.stdout
