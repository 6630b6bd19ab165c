"""Text of problems and models is shown as it is: it neither breaks nor enters what surrounds it."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from cotpipe.report.markdown import code, escape, quote
from cotpipe.report.plain import visible

PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
HOSTILE = [
    ("![x](figure1.png)", r"!\[x\](figure1.png)"),
    ("[x](javascript:alert(1))", r"\[x\](javascript:alert(1))"),
    ("[x]: http://a.b", r"\[x\]: http\://a.b"),
    ("see https://a.b or www.a.b or me@a.b", r"see https\://a.b or www\.a.b or me\@a.b"),
    ("<img src=x onerror=alert(1)>", r"\<img src=x onerror=alert(1)>"),
    ("<!-- hidden", r"\<!-- hidden"),
    ("&lt;b&gt;", r"\&lt;b\&gt;"),
    ("a | b |", r"a \| b \|"),
    ("# big", r"\# big"),
    ("#### 72", r"\#\#\#\# 72"),
    ("what is C #", r"what is C \#"),
    ("```python", r"\`\`\`python"),
    ("~~~", r"\~\~\~"),
    ("`rm`", r"\`rm\`"),
    ("*a* __b__ snake_case", r"\*a\* \_\_b\_\_ snake\_case"),
    ("costs $5 and $6", r"costs \$5 and \$6"),
    ("> said", r"\> said"),
    ("- item", r"\- item"),
    ("+ item", r"\+ item"),
    ("1. item", r"1\. item"),
    ("2) item", r"2\) item"),
    ("---", r"\---"),
    ("===", r"\==="),
    (":-:", r"\:-:"),
    ("    indented", "indented"),
    ("ends with a backslash\\", "ends with a backslash\\\\"),
    ("two\nlines\r\nand\x0bmore", r"two lines and\x0bmore".replace("\\", "\\\\")),
    ("\x1b[31mred", r"\\x1b\[31mred"),
    ("", ""),
    # What needs nothing stays readable.
    ("Step 1: 48 / 2 = 24.", "Step 1: 48 / 2 = 24."),
    ("-10", "-10"),
    ("3.5", "3.5"),
    ("What is 2 + 3 - 4?", "What is 2 + 3 - 4?"),
]
# Everything that Markdown takes for a mark, more often than chance has it.
TEXTS = st.text(st.one_of(st.sampled_from("\\`*_{}[]()<>#+-.!|~$&:/=@ \n\t1a\"'"), st.characters()))


@pytest.mark.parametrize(("text", "shown"), HOSTILE)
def test_marks_are_escaped_and_nothing_else(text, shown):
    assert escape(text) == shown


def words(text: str) -> str:
    return " ".join(visible(text).split())


def plain(tokens: list[Token] | None) -> str:
    """The text of inline tokens; fails if any is more than text."""
    assert tokens is not None
    assert {token.type for token in tokens} <= {"text", "text_special", "softbreak"}
    return "".join("\n" if token.type == "softbreak" else token.content for token in tokens)


PLACES = {
    "paragraph": ("{}", ["paragraph_open", "inline", "paragraph_close"]),
    "heading": ("### 1. {}", ["heading_open", "inline", "heading_close"]),
    "after a word": ("Gold answer: {}", ["paragraph_open", "inline", "paragraph_close"]),
}


@pytest.mark.parametrize("place", PLACES)
@given(text=TEXTS)
def test_any_text_is_shown_as_it_is(place, text):
    template, types = PLACES[place]
    shown = words(text)
    if not shown:
        return
    tokens = PARSER.parse(template.format(escape(text)))
    assert [token.type for token in tokens] == types
    assert plain(tokens[1].children) == words(template.removeprefix("### ").format(shown))


@given(first=TEXTS, second=TEXTS)
@example(first="a | b", second="\\")
def test_any_text_stays_in_its_cell(first, second):
    table = f"| one | two |\n| --- | --- |\n| {escape(first)} | {escape(second)} |\n"
    cells = [token for token in PARSER.parse(table) if token.type == "inline"]
    assert [plain(cell.children) for cell in cells] == ["one", "two", words(first), words(second)]


@given(text=TEXTS)
@example(text="\x1f")
@example(text="one\n\n\n    two\n> three")
def test_any_text_stays_in_its_quotation(text):
    tokens = PARSER.parse(f"before\n\n{quote(text)}\n\nafter")
    outer = [token.type for token in tokens if token.level == 0]
    assert [kind for kind in outer if kind != "inline"] == [
        "paragraph_open", "paragraph_close", "blockquote_open", "blockquote_close",
        "paragraph_open", "paragraph_close",
    ]  # fmt: skip
    assert {token.type for token in tokens if token.level == 1} >= {"paragraph_open"}
    inside = [plain(token.children) for token in tokens if token.type == "inline"][1:-1]
    expected = words(text) or "(nothing)"
    assert " ".join(" ".join(inside).split()) == expected


@given(text=TEXTS)
def test_any_text_is_one_code_span(text):
    shown = words(text)
    if not shown:
        assert code(text) == ""
        return
    children = PARSER.parse(f"before {code(text)} after")[1].children
    assert children
    (span,) = children[1:-1]
    assert (span.type, span.content) == ("code_inline", shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u200bb", r"a\u200bb"),
        ("a\u00adb", r"a\xadb"),
        ("a\u2060b", r"a\u2060b"),
        ("a\U000e0041b", r"a\U000e0041b"),
        ("a\u3164b\ufe00\u200d", r"a\u3164b\ufe00\u200d"),
        *[(text, text) for text in ("👩‍🚀", "❤️", "❤️‍🔥", "1️⃣", "می‌خواهم", "क्‍ष")],
    ],
)
def test_what_has_no_width_is_shown_except_where_a_script_or_an_emoji_needs_it(text, shown):
    assert visible(text) == shown


@given(text=TEXTS)
def test_what_is_visible_can_be_written_and_moves_nothing(text):
    shown = visible(text)
    assert visible(shown) == shown
    shown.encode()
    assert not {unicodedata.category(char) for char in shown.replace("\n", "").replace("\t", "")} & {
        "Cc", "Cs", "Zl", "Zp",
    }  # fmt: skip
    turning = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert not {unicodedata.bidirectional(char) for char in shown} & turning
