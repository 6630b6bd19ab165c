"""What is shown of a comparison: the same in the terminal's table, in Markdown and on the page."""

import dataclasses

import pytest

from cotpipe.report.compared import as_markdown, rows_of, verdicts, without_result
from cotpipe.report.comparison_page import write_comparison_page
from tests.helpers.comparisons import made_up


def test_the_baseline_comes_first_and_differences_are_signed():
    rows = rows_of(made_up("alike"))
    assert [row[0] for row in rows] == ["alike (baseline)", "full", "plain"]
    difference = {row[0]: row[4] for row in rows}
    assert difference["alike (baseline)"] == ""
    assert difference["plain"].startswith("-")
    assert "points [" in difference["plain"]
    assert "+" in difference["plain"].split("points")[1]  # more tokens
    assert rows[0][5:] == ("1,234,567", "89,000", "12.6")


def test_verdicts_and_what_has_no_result_are_told():
    compared = made_up()
    plain, alike = verdicts(compared)
    assert plain.startswith("plain against full: loses ")
    assert alike.startswith("alike against full: no difference shown; in 400 answers over 4 seeds")
    assert without_result(compared) == [
        "plain, seed 7: failed (20261126-1: out of memory)",
        "alike: not run yet with seed 8, 9",
    ]


def test_without_the_baseline_nothing_is_compared():
    compared = dataclasses.replace(made_up(), baseline="gone", contrasts=[])
    assert verdicts(compared) == ["gone, the baseline, has no completed run: nothing is compared"]


@pytest.mark.parametrize("nothing", [False, True])
def test_markdown_and_page_have_every_figure_and_escape_texts(tmp_path, nothing):
    compared = made_up(why="failed: <script>alert(1)</script> | [x](y)")
    if nothing:
        compared = dataclasses.replace(compared, scores={}, costs={}, checkpoints=[], contrasts=[])
    write_comparison_page(tmp_path / "page.html", compared)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    text = as_markdown(compared)
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert r"\<script>alert" in text
    for row in rows_of(compared):
        assert row[2] in page
        assert row[5] in text
