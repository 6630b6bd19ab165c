"""The pages of a run and of a comparison in a browser: on a desk and on a phone, in the dark, with hostile texts, on paper."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from playwright.sync_api import Browser, Page, expect

from cotpipe.report.comparison_page import write_comparison_page
from cotpipe.report.run_page import RunResults, write_run_page
from cotpipe.report.training_curves import Training
from tests.helpers.comparisons import made_up
from tests.helpers.polling import PATIENCE
from tests.helpers.results import run_results

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> \x1b[2J \u202e ]]> &amp;"
DESK, PHONE = (1280, 900), (390, 844)

Opened = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser, tmp_path) -> Iterator[Opened]:
    """Opens the page of a made-up run; in the end no page has asked for anything or complained."""
    said: list[str] = []
    asked: list[str] = []
    pages: list[Page] = []

    def write_run(file, change=lambda run: run, **results) -> None:
        write_run_page(file, change(run_results(tmp_path, **({"num_problems": 30} | results))))

    def open_page(size=DESK, scheme="light", write=write_run, **content) -> Page:
        file = tmp_path / "report.html"
        write(file, **content)
        page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        pages.append(page)
        return page

    yield open_page
    assert not said
    assert set(asked) <= {(tmp_path / "report.html").as_uri()}
    for page in pages:
        page.close()


def flips(page: Page):
    return page.locator("article.flip")


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_the_page_shows_the_run_and_nothing_is_wider_than_the_screen(opened, size, keep):
    page = opened(size, num_problems=60)
    expect(page.get_by_role("heading", level=1)).to_have_text(
        "page: base against 3 stages of distillation"
    )
    expect(page.locator(".verdict")).to_contain_text("Stage 3 adds accuracy and saves tokens")
    for name in ("Accuracy against mean output tokens", "Accuracy of every checkpoint by number"):
        expect(page.get_by_role("img", name=re.compile(name))).to_be_visible()
    widths = "[document.documentElement.scrollWidth, window.innerWidth]"
    for width in (size[0], 320, 768, 860, 1024):
        page.set_viewport_size({"width": width, "height": size[1]})
        assert page.evaluate(widths) == [width, width]
    page.set_viewport_size({"width": size[0], "height": size[1]})
    text = page.locator(".chart svg text").first
    assert text.evaluate("text => text.getBoundingClientRect().height") > 8
    keep(page, f"report-{size[0]}")


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_the_page_of_a_comparison_shows_it_and_nothing_is_wider_than_the_screen(opened, size, keep):
    page = opened(size, write=write_comparison_page, compared=made_up(why=HOSTILE))
    expect(page.get_by_role("heading", level=1)).to_have_text("Comparison made-up")
    expect(page.locator(".verdict")).to_contain_text("plain against full: loses ")
    expect(page.get_by_role("img", name=re.compile("of every arm"))).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("^plain")).first).to_be_visible()
    widths = "[document.documentElement.scrollWidth, window.innerWidth]"
    assert page.evaluate(widths) == [size[0], size[0]]
    assert page.evaluate("window.hacked") is None
    keep(page, f"comparison-{size[0]}")


def test_the_table_of_results_stays_a_table_on_a_phone(opened):
    page = opened(PHONE)
    table = page.get_by_role("table", name=re.compile("Greedy answers"))
    expect(table.get_by_role("row", name=re.compile("stage 2"))).to_be_visible()
    expect(table.get_by_role("rowheader", name="stage 2")).to_be_visible()
    assert table.get_by_role("columnheader").count() == 5


def test_answers_are_searched_and_filtered_by_what_changed(opened):
    page = opened()
    expect(page.get_by_role("status")).to_have_text(re.compile(r"^10 of \d+ problems shown$"))
    page.get_by_role("button", name="Show more").click()
    assert flips(page).count() > 10
    page.get_by_role("combobox", name="Change").select_option("lost")
    page.get_by_role("combobox", name="from").select_option("stage 1")
    page.get_by_role("combobox", name="to").select_option("stage 2")
    assert flips(page).count() > 0
    for number in range(flips(page).count()):
        answers = flips(page).nth(number)
        expect(answers.locator(".answer", has_text="stage 1").first).to_contain_text("right")
        expect(answers.locator(".answer", has_text="stage 2").first).to_contain_text("wrong")
    page.get_by_role("combobox", name="Change").select_option("any")
    page.get_by_role("searchbox").fill("has 17 PENS")
    expect(page.get_by_role("status")).to_have_text("1 of 1 problems shown")
    expect(flips(page).get_by_role("heading", level=3)).to_contain_text("Ann has 17 pens")
    expect(flips(page).locator(".answer")).to_have_count(5)  # the teacher's and four checkpoints'
    page.get_by_role("searchbox").fill("nobody wrote this")
    expect(page.get_by_role("status")).to_have_text("0 of 0 problems shown")


def test_everything_is_reached_with_the_keyboard(opened):
    page = opened()
    reached = []
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the results")).to_be_focused()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.name || document.activeElement.hash"))
    assert {"#results", "#training", "#answers", "#cost", "text", "change"} <= set(reached)
    page.get_by_role("searchbox").focus()
    page.keyboard.type("17 pens")
    assert flips(page).count() == 1


def test_hostile_texts_are_texts(opened):
    page = opened(text=HOSTILE)
    page.get_by_role("button", name="Show more").click()
    assert page.evaluate("window.hacked") is None
    expect(flips(page).first).to_contain_text("</script><script>window.hacked = 1</script>")
    expect(flips(page).first).to_contain_text("\\x1b[2J \\u202e ]]> &amp;")
    assert page.locator("main img").count() == 0
    assert page.locator("script").count() == 2


def test_the_policy_of_the_page_runs_no_other_script_and_loads_nothing(browser, tmp_path):
    file = tmp_path / "report.html"
    write_run_page(file, run_results(tmp_path, num_problems=5))
    more = "<script>window.hacked = 1</script><img src='http://127.0.0.1:9/x.png'>"
    file.write_text(file.read_text().replace("</main>", f"{more}</main>"))
    page = browser.new_page()
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(file.as_uri())
    assert page.evaluate("window.hacked") is None
    assert len([text for text in refused if "Content Security Policy" in text]) == 2
    page.close()


def test_marks_of_a_chart_say_what_they_are(opened):
    page = opened()
    chart = page.get_by_role("img", name=re.compile("Accuracy against mean"))
    chart.locator("[aria-label^='stage 2: accuracy']").first.hover()
    expect(page.locator("#tip")).to_have_text(re.compile(r"^stage 2: accuracy \d+\.\d % \["))


def colors(page: Page) -> dict[str, str]:
    """The colours of the page, its text, and a label and a mark of the first chart."""
    return page.evaluate("""() => {
        const of = (selector, name) => getComputedStyle(document.querySelector(selector))[name];
        return {page: of("body", "backgroundColor"), text: of("body", "color"),
                label: of(".chart svg text", "fill"), mark: of(".chart [aria-roledescription=point]", "stroke")};
    }""")


def luminance(color: str) -> float:
    """The relative luminance of an `rgb(...)` (WCAG 2.2)."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_and_marks_stand_out_in_light_and_dark(opened, scheme, keep):
    page = opened(scheme=scheme)
    found = colors(page)
    assert (luminance(found["page"]) < 0.1) == (scheme == "dark")
    assert contrast(found["page"], found["text"]) > 7
    assert contrast(found["page"], found["label"]) > 7
    names = [f"--series-{number}" for number in range(8)]
    series = page.evaluate(
        "names => names.map(name => { document.body.style.outlineColor = `var(${name})`; "
        "return getComputedStyle(document.body).outlineColor; })",
        names,
    )
    assert [
        name for name, one in zip(names, series, strict=True) if contrast(found["page"], one) < 3
    ] == []
    keep(page, f"report-{scheme}")


def test_paper_is_light_and_has_no_controls(opened):
    page = opened(scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert luminance(colors(page)["page"]) > 0.9
    expect(page.get_by_role("navigation")).to_be_hidden()
    expect(page.locator("#filters")).to_be_hidden()
    expect(flips(page).first).to_be_visible()


@pytest.mark.parametrize("stages", [("stage1",), ("stage2",)])
def test_a_run_of_one_stage(opened, stages):
    page = opened(stages=stages)
    expect(page.get_by_role("heading", level=1)).to_contain_text("1 stage of distillation")
    kept = page.get_by_role("heading", name="What was kept")
    expect(kept).to_have_count(int(stages == ("stage2",)))
    expect(page.get_by_role("img", name=re.compile("^Loss"))).to_be_visible()


def test_a_run_that_changed_no_answer(opened):
    page = opened(
        stages=("stage1",),
        change=lambda run: replace(run, rows=dict.fromkeys(run.rows, run.rows["base"])),
    )
    expect(page.locator("#answers")).to_contain_text(
        "No problem is answered right by one checkpoint"
    )
    expect(page.get_by_role("searchbox")).to_have_count(0)
    expect(page.locator(".verdict")).to_contain_text("neither accuracy nor length beyond noise")


def test_a_run_of_which_parts_are_missing(opened):
    """No stage was trained, no rationale was verified, and the records of the artifacts are gone."""

    def without(run: RunResults) -> RunResults:
        untrained = {name: Training(one.log.head(0)) for name, one in run.trainings.items()}
        return replace(run, trainings=untrained, choices=[], outcomes=[], teacher={}, costs=[])

    page = opened(change=without)
    expect(page.locator("#training")).to_contain_text("Stage 1 had too few problems")
    expect(page.locator("#teacher")).to_contain_text("It gave none.")
    expect(page.locator("#cost")).to_contain_text("No artifact's record was found.")
    expect(page.get_by_role("heading", name="By number of reasoning steps")).to_have_count(0)
    expect(flips(page).first.locator(".answer")).to_have_count(4)


def test_the_report_of_a_run_of_the_tests_store(browser, finished, keep):
    """A whole run with a tiny student, as `cotpipe report` gives it."""
    folder, results = finished
    (file,) = (folder / str(results["report"].reference)).glob("*/report.html")
    page = browser.new_page(viewport={"width": PHONE[0], "height": PHONE[1]})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(file.as_uri(), timeout=1000 * PATIENCE)
    expect(page.get_by_role("row", name=re.compile("evaluation-stage3"))).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
    assert not said
    keep(page, "report-of-the-store")
    page.close()
