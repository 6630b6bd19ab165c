"""What people do in Prefect's UI: fill in the form, start a run, look at its results, retry one that failed."""

from playwright.sync_api import Page, expect

from tests.helpers.servers import ScriptedModel


def open_form(page: Page, address: str, deployment: str) -> None:
    page.goto(f"{address}/deployments")
    page.get_by_role("link", name=deployment, exact=True).first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run").click()


def field(page: Page, title: str):
    """The innermost part of the form with this title."""
    return page.locator(".p-label.schema-form-property").filter(has_text=title).last


def fill(page: Page, title: str, value: str) -> None:
    field(page, title).locator("input, textarea").first.fill(value)


def submit(page: Page) -> str:
    """Send the form, again where the server is too busy (SQLite locks); returns the run's id."""
    for _ in range(5):
        with page.expect_response(lambda answer: "/create_flow_run" in answer.url) as response:
            page.get_by_role("button", name="Submit").click()
        if response.value.status != 503:
            break
    assert response.value.ok, (response.value.status, response.value.text())
    return response.value.json()["id"]


def wait_for_state(page: Page, stack, run_id: str, state: str) -> None:
    stack.wait(run_id, state.upper())
    page.goto(f"{stack.address}/runs/flow-run/{run_id}")
    expect(page.locator(".state-badge").first).to_have_text(state)


def test_the_form_starts_a_run_that_shows_its_results(stack, page, keep):
    open_form(page, stack.address, "curriculum")
    expect(page.get_by_text("Everything that determines what is computed")).to_be_visible()
    for text in (
        "Share of steps masked at the start of the stage",
        "Maximum length of a completion (tokens)",
        "Peak learning rate",
    ):
        expect(page.get_by_text(text).first).to_be_attached()
    keep(page, "ui-form")
    fill(page, "start_from", "tiny")
    fill(page, "Name of the recipe, shown for its runs", "from-the-form")
    fill(page, "for the GGUF model in an installed", str(stack.student))
    run_id = submit(page)
    wait_for_state(page, stack, run_id, "Completed")
    assert stack.run(run_id)["parameters"]["recipe"]["name"] == "from-the-form"
    keep(page, "ui-run")
    page.get_by_text("Task Runs", exact=True).first.click()
    expect(page.get_by_text("evaluation-stage3").first).to_be_attached()
    artifacts = stack.artifacts(run_id)
    assert {"results", "full-report", "report", "stage1", "stage2", "stage3"} <= artifacts.keys()
    lineage = stack.ask(
        "/events/filter",
        {"filter": {"event": {"name": ["prefect.asset.materialization.succeeded"]}}},
    )
    made = {
        event["resource"]["prefect.resource.name"]: event["related"] for event in lineage["events"]
    }
    assert any("/stage2/" in related["prefect.resource.id"] for related in made["stage3"])
    page.get_by_text("Artifacts", exact=True).first.click()
    expect(page.get_by_text("full-report").first).to_be_visible()
    page.goto(f"{stack.address}/artifacts/artifact/{artifacts['full-report']['id']}")
    expect(
        page.get_by_role("heading", name="from-the-form: base against 3 stages of distillation")
    ).to_be_visible()
    picture = page.locator("img[alt='Accuracy against mean output tokens of every checkpoint']")
    expect(picture).to_be_visible()
    assert picture.evaluate("picture => picture.naturalWidth") > 500
    keep(page, "ui-report")
    page.goto(f"{stack.address}/artifacts/artifact/{artifacts['results']['id']}")
    expect(page.get_by_text("stage 3", exact=True).first).to_be_visible()


def test_the_form_offers_the_kinds_of_sources(stack, page):
    path = stack.folder / "mine.jsonl"  # in the worker's folder: no other file is accepted
    rows = (
        f'{{"question": "Box {number}?", "answer": "Box.\\nNumber.\\n#### 7"}}\n'
        for number in range(40)
    )
    path.write_text("".join(rows))
    open_form(page, stack.address, "prepare")
    fill(page, "start_from", "tiny")
    page.get_by_text("FileSource", exact=True).click()
    fill(page, "Training problems: a .jsonl", path.name)
    run_id = submit(page)
    wait_for_state(page, stack, run_id, "Completed")
    assert stack.tasks(run_id).keys() == {"problems", "rationales", "lessons"}
    assert "problems: 40 kept, 0 dropped" in stack.logs(run_id)


def test_the_form_refuses_what_the_recipe_refuses(stack, page):
    open_form(page, stack.address, "curriculum")
    fill(page, "Completions per prompt", "1")
    with page.expect_response(lambda answer: answer.url.endswith("/create_flow_run")) as response:
        page.get_by_role("button", name="Submit").click()
    assert response.value.status == 409
    expect(
        page.get_by_text("group_size").or_(page.get_by_text("minimum of 2")).first
    ).to_be_visible()


def test_a_failed_run_is_retried_with_its_button(stack, page, keep):
    teacher = {"engine": "openai", "model": "scripted", "max_rejected_share": 1.0, "min_steps": 1}
    run_id = stack.start("curriculum", {"teacher": teacher, "seed": 5}, until="lessons")
    wait_for_state(page, stack, run_id, "Failed")
    expect(page.get_by_text("COTPIPE_SERVERS").first).to_be_visible()
    keep(page, "ui-failed")
    with ScriptedModel(
        lambda messages, body: "Step 1: a\nStep 2: b\nAnswer: 1", port=stack.teacher_port
    ):
        page.get_by_role("button", name="Retry").click()
        page.locator(".p-modal, [role=dialog]").get_by_role("button", name="Retry").click()
        wait_for_state(page, stack, run_id, "Completed")
    stack.wait_for_tasks(
        run_id, {"problems": "Cached", "rationales": "Completed", "lessons": "Completed"}
    )
    page.get_by_text("Task Runs", exact=True).first.click()
    expect(page.get_by_text("Cached").first).to_be_visible()
    keep(page, "ui-retried")
