"""The whole flow with a tiny random student: really trained, really evaluated, reused, looked into and looked after."""

import json
from pathlib import Path

import duckdb
from transformers import AutoModelForCausalLM, AutoTokenizer

from cotpipe.recipe.files import load_recipe
from cotpipe.settings import Settings
from cotpipe.steps.curriculum import steps_of
from cotpipe.store.artifacts import open_store
from flows.curriculum import curriculum
from tests.helpers.flow_runs import TINY
from tests.helpers.polling import polls
from tests.helpers.task_runs import task_runs_of


def folder(finished, kind: str) -> Path:
    store, results = finished
    artifact = store / kind / results[kind].reference.fingerprint
    return artifact / json.loads((artifact / "record.json").read_text())["attempt"]


def test_every_step_is_committed_and_accounts_for_its_rows(finished):
    _, results = finished
    assert len(results) == 16
    assert not any(result.reused for result in results.values())
    for kind in results:
        record = json.loads((folder(finished, kind).parent / "record.json").read_text())
        assert record["kind"] == kind
        assert record["files"]
        assert record["versions"]["trl"]
        assert not list(folder(finished, kind).parent.glob("lease-*"))
        assert not (folder(finished, kind).parent / "training-state").exists()
    assert results["problems"].counts == {"kept": 120, "dropped": 0}
    assert results["rationales"].counts["kept"] + results["rationales"].counts["dropped"] == 120


def test_no_problem_is_taught_and_held_out(finished):
    lessons = folder(finished, "lessons") / "lessons.parquet"
    held_out = {
        row[0]
        for row in duckdb.sql(f"select problem_id from '{lessons}' where split = 'test'").fetchall()
    }
    taught = set()
    for stage in ("stage1", "stage2", "stage3"):
        examples = folder(finished, f"{stage}-examples") / "examples.parquet"
        ids = {row[0] for row in duckdb.sql(f"select problem_id from '{examples}'").fetchall()}
        assert ids
        assert not ids & taught
        taught |= ids
    assert not taught & held_out
    evaluated = folder(finished, "evaluation-stage3") / "evaluations.parquet"
    assert {
        row[0] for row in duckdb.sql(f"select problem_id from '{evaluated}'").fetchall()
    } <= held_out


def test_checkpoints_are_plain_and_trained(finished):
    for stage, steps in (("stage1", 2), ("stage2", 2), ("stage3", 1)):
        path = folder(finished, stage) / "model"
        AutoModelForCausalLM.from_pretrained(path)
        assert AutoTokenizer.from_pretrained(path).eos_token == "<|im_end|>"
        log = folder(finished, stage) / "training_log.parquet"
        assert duckdb.sql(f"select max(step) from '{log}'").fetchall() == [(steps,)]


def test_the_report_says_what_happened(finished):
    text = (folder(finished, "report") / "report.md").read_text()
    assert text.count("### ") == 5
    assert "| stage 3 |" in text
    assert "changes neither accuracy nor length beyond noise" in text
    assert "a share that goes from 0.3 to 1 of the steps" in text
    page = (folder(finished, "report") / "report.html").read_text()
    for kind, result in finished[1].items():
        assert kind == "report" or result.reference.fingerprint in page


def test_a_second_run_reuses_everything_and_a_changed_field_only_what_it_reaches(
    finished, copied, tiny_student
):
    _, results = finished
    again = curriculum(recipe=load_recipe(TINY, [f"student.model={tiny_student}"]))
    assert all(result.reused for result in again.values())
    assert {kind: result.reference for kind, result in again.items()} == {
        kind: result.reference for kind, result in results.items()
    }
    changed = curriculum(
        recipe=load_recipe(
            TINY, [f"student.model={tiny_student}", "stage3.trainer.learning_rate=2e-5"]
        )
    )
    made = {kind for kind, result in changed.items() if not result.reused}
    assert made == {"stage3", "evaluation-stage3", "report"}


def test_a_cached_step_shows_as_cached(copied, tiny_student):
    recipe = load_recipe(TINY, [f"student.model={tiny_student}"])
    state = curriculum(recipe=recipe, return_state=True)
    for _ in polls():  # the server writes the states of task runs a little after the flow is done
        states = [run.state_name for run in task_runs_of(state.state_details.flow_run_id)]
        if states == ["Cached"] * 16:
            break
    assert states == ["Cached"] * 16


def test_data_artifacts_are_the_same_bytes_in_another_store(
    finished, tiny_student, tmp_path, monkeypatch
):
    monkeypatch.setenv("COTPIPE_STORE", str(tmp_path))
    from cotpipe.progress import Silent
    from cotpipe.steps.runner import StepRunner

    recipe = load_recipe(TINY, [f"student.model={tiny_student}"])
    artifacts = {}
    for kind in ("problems", "rationales", "lessons", "stage1-examples", "stage2-examples"):
        inputs = {name: artifacts[name] for name in steps_of(recipe)[kind].inputs}
        outcome = StepRunner(open_store(Settings()), Settings(), Silent()).run(
            steps_of(recipe)[kind], recipe, inputs
        )
        artifacts[kind] = outcome.reference
        first = json.loads((folder(finished, kind).parent / "record.json").read_text())
        assert [file.model_dump() for file in outcome.record.files] == first["files"]
