"""Rerunning an earlier run: what is there is reused, what is missing or asked for is done."""

import shutil
from pathlib import Path

import pytest

from cotpipe.runs.log import read_runs
from cotpipe.settings import Settings
from cotpipe.store.artifacts import open_storage
from tests.helpers.flow_runs import TINY, assert_one_line_error, cotpipe, cotpipe_process


@pytest.fixture
def store(copied) -> str:
    return str(copied)


def made_by_the_last_run(store: str) -> set[str]:
    last = read_runs(open_storage(Settings(store=store)))[-1]
    assert last.outcome == "completed"
    return {kind for kind, step in last.steps.items() if not step.reused}


def test_a_run_that_lacks_a_step_is_run_again_from_there(store):
    shutil.rmtree(Path(store, "evaluation-stage3"))
    shutil.rmtree(Path(store, "report"))
    done = cotpipe_process("rerun", "last", "--store", store)
    assert done.returncode == 0, done.stderr
    assert "stage 3" in done.stdout
    assert made_by_the_last_run(store) == {"evaluation-stage3", "report"}


def test_a_step_is_done_again_where_that_is_asked_for(store):
    done = cotpipe_process("rerun", "last", "--from", "evaluation-stage3", "--store", store)
    assert done.returncode == 0, done.stderr
    assert made_by_the_last_run(store) == {"evaluation-stage3", "report"}
    plan = cotpipe("rerun", "last", "--from", "stage2", "--dry-run", "--store", store)
    assert "requested with --refresh" in plan.stdout
    assert "9 of 16 steps are reused, 7 will run" in plan.stdout


def test_a_run_ends_where_that_is_asked_for(store, tiny_student):
    options = [
        "--recipe",
        TINY,
        "--set",
        f"student.model={tiny_student}",
        "--set",
        "seed=3",
        "--store",
        store,
    ]
    plan = cotpipe("run", *options, "--until", "stage1-examples", "--dry-run")
    assert "0 of 4 steps are reused, 4 will run" in plan.stdout
    done = cotpipe_process("run", *options, "--until", "stage1-examples")
    assert done.returncode == 0, done.stderr
    assert "stage1-examples: " in done.stdout
    assert made_by_the_last_run(store) == {"problems", "rationales", "lessons", "stage1-examples"}
    assert_one_line_error(cotpipe("run", *options, "--until", "stage9"), 2, "'stage9'", "stage3")


def test_what_cannot_be_run_again_is_one_line(store):
    assert_one_line_error(
        cotpipe("rerun", "nothing", "--store", store), 2, "no run is called 'nothing'"
    )
    assert_one_line_error(
        cotpipe("rerun", "last", "--from", "stage9", "--store", store), 2, "'stage9'", "stage3"
    )
    path = next(Path(store, "runs").iterdir())
    path.write_text(path.read_text().replace('"clip_range"', '"clip_length"'))
    assert_one_line_error(
        cotpipe("rerun", path.stem, "--store", store),
        2,
        "not valid in this version of cotpipe",
        "clip_length",
    )
