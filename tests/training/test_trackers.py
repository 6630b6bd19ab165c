"""Trainings that report to experiment trackers: trackio for real, the others as far as they are installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cotpipe.training.launch import train
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


def history() -> tuple[str, list[dict]]:
    """The only run, and what was logged; read by another process, as a user would."""
    done = subprocess.run(
        [sys.executable, "-c", _READ], capture_output=True, text=True, check=True, env=os.environ
    )
    name, rows = json.loads(done.stdout.splitlines()[-1])
    return name, rows


def test_a_training_is_one_run_of_the_tracker_also_if_it_is_resumed(
    tmp_path, tiny_student, tracked
):
    job = job_of(
        tmp_path, tiny_student, "reconstruction", SFT | {"learning_rate": 0.01}, num_epochs=2
    ).model_copy(update={"trackers": ("trackio",), "tracked_as": "demo.stage1.0a1b2c3d"})
    quiet = {"on_event": print, "on_training_state": print, "on_line": print}
    trained = train(job, 1, **quiet)
    name, rows = history()
    assert name == "demo.stage1.0a1b2c3d"
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert losses == [pytest.approx(one.figures["loss"], abs=1e-3) for one in trained.events]
    train(job, 1, **quiet)
    name, rows = history()
    assert sum("train/loss" in row for row in rows) == 2 * len(losses)


def test_without_trackers_nothing_is_reported(tmp_path, tiny_student, tracked):
    job = job_of(tmp_path, tiny_student, "reconstruction", SFT, num_epochs=1)
    train(job, 1, on_event=print, on_training_state=print, on_line=print)
    assert not tracked.exists()


def test_where_trackers_write_outlives_the_training(tmp_path, tiny_student):
    job = job_of(tmp_path, tiny_student, "reconstruction", SFT).model_copy(
        update={"trackers": ("tensorboard",), "tracked_as": "demo.stage1.0a1b2c3d"}
    )
    found = tracking_variables(job)
    folder = Path(found["TENSORBOARD_LOGGING_DIR"])
    assert folder.name == "demo.stage1.0a1b2c3d"
    assert job.work not in folder.parents
    assert json.loads(found["MLFLOW_TAGS"]) == {"stage": "stage1"}
