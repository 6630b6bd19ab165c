"""Trainings that report to experiment trackers: trackio for real."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cotpipe.training.launch import train
from cotpipe.training.messages import SavedTrainingState
from cotpipe.training.trackers import tracking_variables
from tests.training.test_trainers import SFT, job_of

_READ = """
import json
from trackio import SQLiteStorage
(run,) = SQLiteStorage.get_runs("cotpipe")
print(json.dumps([run, SQLiteStorage.get_logs("cotpipe", run)]))
"""


@pytest.fixture
def tracked(tmp_path, monkeypatch) -> Path:
    """The folder of a tracker that knows no network."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "trackio"


def logged() -> tuple[str, list[float]]:
    """The only run, and the losses that were logged; read by another process, as a user would."""
    done = subprocess.run(
        [sys.executable, "-c", _READ], capture_output=True, text=True, check=True, env=os.environ
    )
    name, rows = json.loads(done.stdout.splitlines()[-1])
    return name, [row["train/loss"] for row in rows if "train/loss" in row]


def test_a_training_is_one_run_of_the_tracker_also_if_it_is_resumed(
    tmp_path, tiny_student, tracked
):
    job = job_of(
        tmp_path, tiny_student, "reconstruction", SFT | {"learning_rate": 0.01}, num_epochs=2
    ).model_copy(
        update={
            "trackers": ("trackio",),
            "tracked_as": "demo.stage1.0a1b2c3d",
            "training_state_seconds": 0,
        }
    )
    states = tmp_path / "states"

    def keep(saved: SavedTrainingState) -> None:
        shutil.copytree(saved.folder, states / str(saved.step))

    trained = train(job, 1, on_event=print, on_training_state=keep, on_line=print)
    losses: list[Any] = [pytest.approx(one.figures["loss"], abs=1e-3) for one in trained.events]
    assert logged() == ("demo.stage1.0a1b2c3d", losses)
    resumed = job.model_copy(update={"resume": states / "3"})
    train(resumed, 1, on_event=print, on_training_state=print, on_line=print)
    assert logged() == ("demo.stage1.0a1b2c3d", [*losses, *losses[3:]])


def test_without_trackers_nothing_is_reported(tmp_path, tiny_student, tracked):
    job = job_of(tmp_path, tiny_student, "reconstruction", SFT, num_epochs=1)
    train(job, 1, on_event=print, on_training_state=print, on_line=print)
    assert not tracked.exists()


def test_where_tensorboard_writes_is_not_the_folder_that_goes_with_the_training(
    tmp_path, tiny_student, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    job = job_of(tmp_path / "job", tiny_student, "reconstruction", SFT)
    found = tracking_variables(job.model_copy(update={"tracked_as": "demo.stage1.0a1b2c3d"}))
    folder = Path(found["TENSORBOARD_LOGGING_DIR"])
    assert folder == tmp_path / "tensorboard" / "demo.stage1.0a1b2c3d"
    assert json.loads(found["MLFLOW_TAGS"]) == {"stage": "stage1"}
