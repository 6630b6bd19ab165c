"""Runs whose training is killed or takes too long."""

import signal
import threading
from pathlib import Path

import psutil
import pytest

from cotpipe.errors import RunError
from cotpipe.recipe.files import load_recipe
from flows.curriculum import curriculum
from tests.helpers.flow_runs import TINY
from tests.helpers.polling import polls
from tests.helpers.task_runs import task_runs_of


def trainings(store: Path) -> list[psutil.Process]:
    """The training processes themselves, without their launchers."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if (
            str(store) in " ".join(line)
            and "cotpipe.training" in line
            and "torch.distributed.run" not in line
        ):
            found.append(process)
    return found


@pytest.fixture
def recipe(tiny_student):
    return load_recipe(TINY, [f"student.model={tiny_student}", "stage1.examples.num_epochs=12"])


def test_a_training_that_is_told_to_end_is_tried_again_and_goes_on(
    prefect, recipe, tmp_path, monkeypatch
):
    monkeypatch.setenv("COTPIPE_STORE", str(tmp_path))
    monkeypatch.setenv("COTPIPE_TRAINING_STATE_SECONDS", "0")
    killed = []

    def kill() -> None:
        for _ in polls():
            if list(tmp_path.glob("stage1/*/training-state/*.json")) and (
                found := trainings(tmp_path)
            ):
                found[0].send_signal(signal.SIGTERM)
                killed.append(found[0].pid)
                return

    killer = threading.Thread(target=kill)
    killer.start()
    state = curriculum(recipe=recipe, until="stage1", return_state=True)
    killer.join()
    assert len(killed) == 1
    steps = state.result()["stage1"].counts["optimizer_steps"]
    assert steps == 2 * recipe.stage("stage1").examples.num_epochs
    for _ in polls():
        runs = {run.name: run.run_count for run in task_runs_of(state.state_details.flow_run_id)}
        if runs.get("stage1") == 2:
            break
    assert runs["stage1"] == 2


def test_a_step_that_takes_too_long_is_ended_with_its_training(
    prefect, recipe, tmp_path, monkeypatch
):
    monkeypatch.setenv("COTPIPE_STORE", str(tmp_path))
    curriculum(recipe=recipe, until="stage1-examples")
    monkeypatch.setenv("COTPIPE_STEP_HOURS", str(3 / 3600))  # less than a training takes to start
    with pytest.raises(
        RunError, match="step stage1 took longer than .* hours; raise COTPIPE_STEP_HOURS"
    ):
        curriculum(recipe=recipe, until="stage1")
    assert not trainings(tmp_path)
