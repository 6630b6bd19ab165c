"""The report shows what problems and models wrote, and is not broken by it."""

from itertools import pairwise

import pandas as pd
from markdown_it import MarkdownIt

from cotpipe.data.rows import TeacherOutcome
from cotpipe.recipe.model import Recipe
from cotpipe.report.statistics import Change
from cotpipe.report.validations import Choice
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


def test_what_the_stages_kept_is_a_table_of_the_report(tmp_path):
    own = {"task": "own-answers", "hints": True}
    stages = [
        {"name": "stage2", "examples": {"task": "completion"}, "trainer": {"kind": "grpo", "keep": "best"}},
        {"name": "stage3", "examples": own, "trainer": {"kind": "sft"}},
    ]  # fmt: skip
    recipe = Recipe.model_validate({"stages": stages})
    rows = {name: evaluated(name == "stage3") for name in recipe.checkpoints}
    unchanged, longer = Change(0.0, -0.02, 0.02, 1.0), Change(-9.0, -10.0, -8.0, 0.01)
    choices = [
        Choice("stage2", 0, 40, 60, 0.55, 0.5, unchanged, unchanged),
        Choice("stage2b", 20, 40, 250, 0.5, 0.52, Change(0.1, 0.05, 0.15, 0.01), longer),
    ]
    steps = dict.fromkeys(recipe.starts, 4)
    write_report(tmp_path / "report.md", recipe, rows, steps, [], choices)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    first, second = (line for line in text.splitlines() if " steps | " in line)
    assert "| the start | 40 steps | 60 | 55.0 % |" in first
    assert "so that checkpoint is handed on; 60 held-out problems are too few" in first
    assert "| step 20 | 40 steps | 250 | 50.0 % | +10.0 points" in second
    assert "too few" not in second
    assert "Stage 3 learns the shortest right ones of 8 answers of its own" in text
    assert "with the least hint where none was right" in text
