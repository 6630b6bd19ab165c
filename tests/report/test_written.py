"""The report shows what problems and models wrote, and is not broken by it."""

from itertools import pairwise

import pandas as pd
from markdown_it import MarkdownIt

from cotpipe.data.rows import TeacherOutcome
from cotpipe.recipe.model import Recipe
from cotpipe.report.written import write_report

HOSTILE = [
    ("![x](figure1.png)", "<img src=x>", "| a | b |\n| --- | --- |"),
    ("# A heading?", "```", "```\nStep 1: never closed"),
    ("<script>alert(1)</script>", "[x](http://a.b)", "<!-- hidden\n# Before and after"),
    ("![x](results.png)", "x\n\n![y](training.png)", "> said\n\n---\n\n![z](results.png)"),
    ("\x1b[2Jgone", "\u202edenrut", "a\rb\x00"),
]


def evaluated(correct: bool) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "problem_id": f"p{number}", "question": question, "answer": answer,
                "completion": completion, "correct": correct, "valid_format": correct,
                "num_tokens": 9 + number, "truncated": False,
            }
            for number, (question, answer, completion) in enumerate(HOSTILE)
        ]
    )  # fmt: skip


def test_pictures_html_and_headings_of_a_problem_do_not_enter_the_report(tmp_path):
    recipe = Recipe.model_validate(
        {"student": {"model": "./`![x](y.png)`"}, "teacher": {"model": "<b>|teacher|</b>"}}
    )
    rows = {name: evaluated(name == "stage3") for name in recipe.checkpoints}
    outcomes = [TeacherOutcome("<i>odd</i> | reason", 3, 1.0, 9.0, 30)]
    write_report(tmp_path / "report.md", recipe, rows, dict.fromkeys(recipe.starts, 4), outcomes)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "\x1b" not in text
    assert "\u202e" not in text
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)
    inline = [child for token in tokens for child in token.children or []]
    assert [one.attrs["src"] for one in inline if one.type == "image"] == [
        "results.png", "training.png",
    ]  # fmt: skip
    kinds = {token.type for token in (*tokens, *inline)}
    assert not kinds & {"html_block", "html_inline", "link_open", "fence", "code_block", "hr"}
    headings = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    assert headings[1:5] == [
        "What each stage changed", "The teacher", "Key settings", "Before and after"
    ]  # fmt: skip
    assert len(headings) == 5 + len(HOSTILE)
    assert len([token for token in tokens if token.type == "table_open"]) == 3
    shown = "".join(one.content for one in inline if one.type.startswith("text"))
    for part in ("![x](figure1.png)", "<script>alert(1)</script>", "<!-- hidden", "\\x1b[2Jgone"):
        assert part in shown
    assert "(Holm)" in text
