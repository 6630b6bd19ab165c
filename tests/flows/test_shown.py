"""What Prefect's UI shows of a report: its own pictures, whatever the problems look like."""

import re

from prefect import flow
from prefect.artifacts import Artifact

from cotpipe.data.rows import Result, write_rows
from cotpipe.recipe.model import Recipe
from cotpipe.report.written import write_report
from cotpipe.steps import report
from cotpipe.steps.runner import Outcome
from cotpipe.store.artifacts import Store
from cotpipe.store.records import Record, Reference
from cotpipe.store.storage import LocalStorage
from tasks.shown import show_in_prefect
from tests.report.test_written import evaluated


def reported(store: Store, recipe: Recipe) -> Record:
    """A report on problems that look like pictures and more; its own pictures are one byte each."""
    reference = Reference(kind="report", fingerprint="f" * 32)
    record = Record(
        kind="report", fingerprint="f" * 32, attempt="0" * 8, step_version=1, fields={}, inputs={}, counts={},
        files=[], versions={}, made_at="2026-01-01T00:00:00+00:00", seconds=0.0,
    )  # fmt: skip
    rows = {name: evaluated(name == "stage3") for name in recipe.checkpoints}
    with store.draft(reference) as draft:
        steps = dict.fromkeys(recipe.starts, 4)
        write_report(draft.path / "report.md", recipe, rows, steps, [])
        (draft.path / "results.png").write_bytes(b"1")
        (draft.path / "training.png").write_bytes(b"2")
        write_rows(draft.path / "results.parquet", Result, [])
        return store.commit(draft, record)


def test_a_question_that_looks_like_a_picture_is_shown_as_a_question(prefect, tmp_path):
    store = Store(LocalStorage(tmp_path / "my (own) store"))
    recipe = Recipe()
    record = reported(store, recipe)

    @flow
    def showing() -> None:
        show_in_prefect(report.step(recipe), Outcome(record.reference, True, record), store)

    showing()
    shown = Artifact.get("full-report")
    assert shown
    assert isinstance(shown.data, str)
    assert re.findall(r"!\[.*\]\((.*)\)", shown.data) == [
        "data:image/png;base64,MQ==", "data:image/png;base64,Mg==",
    ]  # fmt: skip
    assert "### 1. !\\[x\\](figure1.png)" in shown.data
    place = Artifact.get("report")
    assert place
    assert isinstance(place.data, str)
    assert "my%20%28own%29%20store" in place.data
