"""`cotpipe report`: where the page of a run lies, its text, and the browser."""

from pathlib import Path

import pytest

from cotpipe.recipe.model import Recipe
from cotpipe.runs.log import RunLog
from cotpipe.store.artifacts import Store, open_store
from cotpipe.store.records import Record, Reference
from cotpipe.store.storage import LocalStorage
from tests.helpers.flow_runs import assert_one_line_error, cotpipe, cotpipe_process
from tests.helpers.s3 import KEY, SECRET, rclone, s3_settings

REPORT = Reference(kind="report", fingerprint="f" * 32)


def reported(store: Store, files: dict[str, str]) -> str:
    """The id of a run in the store whose report has these files."""
    record = Record(
        kind="report", fingerprint="f" * 32, attempt="0" * 8, step_version=6, fields={}, inputs={}, counts={},
        files=[], versions={}, made_at="2026-01-01T00:00:00+00:00", seconds=0.0,
    )  # fmt: skip
    log = RunLog(store.storage, Recipe(), "5eed")
    if files:
        with store.draft(REPORT) as draft:
            for name, text in files.items():
                (draft.path / name).write_text(text)
            store.commit(draft, record)
        log.step(REPORT, reused=False, seconds=1.0)
    log.finish("completed" if files else "failed")
    return log.run.run_id


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    monkeypatch.setenv("COTPIPE_STORE", str(tmp_path / "store"))
    return Store(LocalStorage(tmp_path / "store"))


def test_it_prints_where_the_page_lies_or_the_report_as_text(store):
    run_id = reported(store, {"report.html": "<p>page</p>", "report.md": "# \x1b[31mtext\n"})
    for name in ("last", run_id):
        place = Path(cotpipe("report", name).stdout.rstrip("\n"))
        assert place.read_text() == "<p>page</p>"
        assert place.is_absolute()
    assert cotpipe("report", "last", "--text").stdout == "# \\x1b[31mtext\n"
    assert_one_line_error(cotpipe("report", "last", "--text", "--open"), 2, "choose one")


def test_it_opens_the_page_in_the_browser(store, tmp_path):
    reported(store, {"report.html": "<p>page</p>", "report.md": ""})
    browser, asked = tmp_path / "browser", tmp_path / "asked"
    browser.write_text(f'#!/bin/sh\necho "$1" > {asked}\n')
    browser.chmod(0o755)
    done = cotpipe_process("report", "last", "--open", BROWSER=f"{browser} %s")
    assert done.returncode == 0, done.stderr
    assert asked.read_text().strip() == Path(done.stdout.strip()).as_uri()
    done = cotpipe_process("report", "last", "--open", BROWSER="false %s", PATH="/nowhere")
    assert_one_line_error(done, 1, "no browser could be started")


def test_the_page_of_a_run_on_s3_is_fetched_whole(tmp_path):
    with rclone(tmp_path / "s3") as address:
        settings = s3_settings(address, tmp_path / "cache")
        reported(open_store(settings), {"report.html": "<p>far</p>", "report.md": "far"})
        done = cotpipe(
            "report", "last", COTPIPE_STORE=settings.store, COTPIPE_S3_ENDPOINT_URL=address,
            COTPIPE_S3_REGION="us-east-1", COTPIPE_S3_ACCESS_KEY_ID=KEY, COTPIPE_S3_SECRET_ACCESS_KEY=SECRET,
            COTPIPE_CACHE=str(tmp_path / "another cache"),
        )  # fmt: skip
        assert Path(done.stdout.rstrip("\n")).read_text() == "<p>far</p>", done.stderr


def test_a_run_without_a_report_or_with_an_older_one_is_told_how_to_get_it(store):
    run_id = reported(store, {})
    again = f"cotpipe rerun {run_id}"
    assert_one_line_error(cotpipe("report", "last"), 2, f"run {run_id} (failed)", again)


def test_a_report_of_an_earlier_version_has_no_page(store):
    run_id = reported(store, {"report.md": "old"})
    assert_one_line_error(cotpipe("report", run_id), 2, "earlier cotpipe", "cotpipe rerun")
    assert_one_line_error(cotpipe("report", "other"), 2, "no run is called")
