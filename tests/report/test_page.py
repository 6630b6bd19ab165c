"""The page of a run as a file: texts stay texts, nothing is loaded, what is missing is left out."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from cotpipe.report.charts import Point, accuracy_by_tokens
from cotpipe.report.drawing import save_png, svg
from cotpipe.report.rewarded import rewarded
from cotpipe.report.run_page import write_run_page
from cotpipe.report.statistics import Estimate
from tests.helpers.results import run_results

HOSTILE = "</script><script>alert(1)</script> <img src=x onerror=alert(2)> {{ 7 * 7 }} \x1b[2J \u202e &lt; -->"
OUR_ELEMENTS = {
    "a", "article", "body", "button", "caption", "code", "dd", "details", "div", "dl", "dt", "fieldset", "figcaption",
    "figure", "form", "h1", "h2", "h3", "h4", "head", "header", "html", "input", "label", "li", "link", "main", "meta",
    "meter", "nav", "noscript", "option", "p", "pre", "script", "section", "select", "span", "style", "summary",
    "table", "tbody", "td", "th", "thead", "title", "tr", "ul",
    "svg", "g", "path", "line", "text", "rect", "defs", "clippath", "tspan",
}  # fmt: skip


class Elements(HTMLParser):
    """The names and attributes of all elements, and the texts of those of one name."""

    def __init__(self, text: str, name: str = "script") -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self._inside = ""
        self._name = name
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes += attrs
        self._inside = tag
        if tag == self._name:
            self.texts.append("")

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == self._name:
            self.texts[-1] += data


def written(folder, **choices) -> str:
    write_run_page(folder / "report.html", run_results(folder, **choices))
    return (folder / "report.html").read_text(encoding="utf-8")


def test_hostile_texts_open_no_element_and_end_no_script(tmp_path):
    page = written(tmp_path, num_problems=8, text=HOSTILE)
    found = Elements(page)
    assert found.names <= OUR_ELEMENTS
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    assert not set("\x1b\u202e") & set(page)
    assert len(found.texts) == 2  # the data and our script
    shown = json.loads(found.texts[0])["problems"][0]
    assert "</script><script>alert(1)</script> <img src=x onerror=alert(2)>" in shown["question"]
    assert "{{ 7 * 7 }} \\x1b[2J \\u202e" in shown["answers"][0]["text"]
    assert HOSTILE.split(" ")[0] in shown["teacher"]


def test_a_page_names_no_place_to_load_from(tmp_path):
    page = written(tmp_path, num_problems=8)
    links = [value or "" for name, value in Elements(page).attributes if name in ("href", "src")]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) <= {
        "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink",
    }  # fmt: skip
    assert "default-src 'none'" in page


def test_every_artifact_of_a_run_is_named_in_full(tmp_path):
    run = run_results(tmp_path, num_problems=8)
    write_run_page(tmp_path / "report.html", run)
    page = (tmp_path / "report.html").read_text()
    assert [one.record.fingerprint in page for one in run.costs] == [True] * len(run.costs)
    assert "evaluation-stage3/" in page


@pytest.mark.parametrize("stages", [("stage1",), ("stage2",), ("stage1", "stage2", "stage3")])
def test_a_run_of_any_stages_has_a_page(tmp_path, stages):
    page = written(tmp_path, stages=stages, num_problems=12)
    assert f"base against {len(stages)} stage{'s' if len(stages) > 1 else ''} of" in page
    assert ("What was kept" in page) == ("stage2" in stages)
    assert ("Reward of a completion" in page) == ("stage2" in stages)


def test_it_shows_what_was_paid_most_and_least_between_two_validations(tmp_path):
    spans = rewarded(run_results(tmp_path, num_problems=4).trainings)
    assert [one.title for one in spans[:4]] == [
        "stage 2, steps 1 to 10", "stage 2, steps 11 to 20", "stage 2, steps 21 to 30", "stage 2, steps 31 to 40",
    ]  # fmt: skip
    assert len(spans) == 8  # of two stages
    assert {one.num_rollouts for one in spans} == {40}
    assert spans[1].mean_reward == pytest.approx(15.5 + 0.015)
    assert spans[1].most.completion == "Step 1: 20 + 1 = 23\nAnswer: 23"
    assert spans[1].most.paid == (
        "reward 20.03 (base 20.00, steps +0.00, length +0.03); wrong, 23 tokens"
    )
    assert spans[1].most.shown == "step 20, with help"
    assert spans[1].least.question == "What is 11 + 1?"
    assert spans[1].least.shown == "step 11, the bare question"
    page = written(tmp_path, num_problems=4)
    assert "Stage 3, steps 31 to 40: 40 completions, mean reward 35.5" in page
    assert "Step 1: 20 + 1 = 23" in page


def test_many_validations_or_none_make_some_ten_spans(tmp_path):
    one = run_results(tmp_path, num_problems=4).trainings["stage2"]
    without = one.log[one.log["name"] != "validation_accuracy"]
    titles = [span.title for span in rewarded({"stage2": replace(one, log=without)})]
    assert (len(titles), titles[0], titles[-1]) == (
        10, "stage 2, steps 1 to 4", "stage 2, steps 37 to 40",
    )  # fmt: skip
    few = without[without["step"] <= 3]
    assert [span.title for span in rewarded({"stage2": replace(one, log=few)})] == [
        "stage 2, step 1", "stage 2, step 2", "stage 2, step 3",
    ]  # fmt: skip
    assert rewarded({"stage2": replace(one, log=without[:0])}) == []


def test_thousands_of_long_answers_stay_under_five_megabytes_and_it_says_what_is_left_out(tmp_path):
    page = written(tmp_path, num_problems=300, text="word " * 2000)
    assert len(page) < 5_000_000
    assert "characters more" in page
    assert re.search(r"the first \d+ by id are here", page)


def test_names_of_groups_are_texts_in_a_chart_and_points_are_told():
    estimate = Estimate(0.5, 0.4, 0.6)
    points = [
        Point("seed 1", estimate, Estimate(50, 45, 55), group="<b>arm</b>"),
        Point("seed 2", estimate, Estimate(60, 55, 65), group="<b>arm</b>"),
    ]
    drawn = str(svg(accuracy_by_tokens(points)))
    assert "<b>" not in drawn
    assert "&lt;b>arm" in drawn.replace("&gt;", ">")
    assert "seed 2: accuracy 50.0 % [40.0, 60.0], tokens 60.0 [55.0, 65.0]" in drawn
    assert "var(--series-0)" in drawn


def test_a_picture_has_the_colours_of_the_page_in_full(tmp_path):
    point = Point("base", Estimate(0.5, 0.4, 0.6), Estimate(50, 45, 55))
    save_png(tmp_path / "one.png", accuracy_by_tokens([point]))
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
