"""Several training processes give the rows and the loss of one, and their failures are told as what they are."""

import os
import shutil
import signal

import psutil
import pytest

from cotpipe.data.rows import Example, write_rows
from cotpipe.errors import RunError, UserError
from cotpipe.recipe.stages import Stage
from cotpipe.steps.examples import examples
from cotpipe.training.endings import KilledError
from cotpipe.training.job import Job
from cotpipe.training.launch import train
from cotpipe.training.processes import accumulation_steps, exit_statuses
from tests.helpers.lessons import TABLE, Table
from tests.helpers.training import train_here

SFT = {"kind": "sft", "batch_size": 8, "micro_batch": 2, "max_length": 400, "learning_rate": 0.01}
GRPO = {
    "kind": "grpo", "group_size": 2, "prompts_per_step": 4, "micro_batch": 4, "max_new_tokens": 8,
}  # fmt: skip


def job_of(folder, student, trainer, **options) -> Job:
    task, name = (
        ("reconstruction", "stage1") if trainer["kind"] == "sft" else ("completion", "stage2")
    )
    stage = Stage.model_validate({"name": name, "examples": {"task": task}, "trainer": trainer})
    folder.mkdir(exist_ok=True)
    lessons = (
        TABLE if trainer["kind"] == "sft" else Table(TABLE[:5])
    )  # the fifth fills no optimizer step
    write_rows(folder / "examples.parquet", Example, examples(lessons, stage, 1))
    return Job(
        stage=stage, answers="number", student=student, examples=folder / "examples.parquet",
        output=folder / "model", work=folder / "work", seed=3, **{"training_state_seconds": 600} | options,
    )  # fmt: skip


def run(job, processes, on_event=print, on_training_state=print):
    return train(job, processes, on_event, on_training_state, on_line=print)


def losses(trained):
    return [event.figures["loss"] for event in trained.events]


def test_two_processes_take_the_rows_and_have_the_loss_of_one(tmp_path, tiny_student):
    def keep(saved):
        if saved.step == 1:
            shutil.copytree(saved.folder, tmp_path / "kept")

    alone = train_here(
        job_of(tmp_path / "alone", tiny_student, SFT, training_state_seconds=0),
        on_training_state=keep,
    )
    both = run(job_of(tmp_path / "both", tiny_student, SFT), 2)
    assert [event.step for event in both.events] == [event.step for event in alone.events]
    assert both.rows == alone.rows
    assert losses(both) == pytest.approx(losses(alone), rel=1e-3)
    resumed = run(job_of(tmp_path / "on", tiny_student, SFT, resume=tmp_path / "kept"), 2)
    assert losses(resumed) == pytest.approx(losses(alone), rel=1e-3)


def test_two_processes_share_few_prompts(tmp_path, tiny_student):
    trained = run(job_of(tmp_path, tiny_student, GRPO | {"micro_batch": 2}), 2)
    assert [event.num_steps for event in trained.events] == [1]


def test_an_error_of_the_processes_is_told_as_that_error(tmp_path):
    job = job_of(tmp_path, tmp_path / "no-model", SFT)
    with pytest.raises(
        RunError, match="training of stage1 ended with status 1: .*no-model"
    ) as error:
        run(job, 2)
    assert "SIGTERM" not in str(error.value)


def test_one_process_that_is_killed_is_told_as_killed(tmp_path, tiny_student):
    job = job_of(tmp_path, tiny_student, SFT)

    def kill_the_second(event):
        for process in psutil.Process(os.getpid()).children(recursive=True):
            if process.environ().get("RANK") == "1":
                process.send_signal(signal.SIGKILL)

    with pytest.raises(KilledError, match="was killed"):
        run(job, 2, on_event=kill_the_second)


def test_rows_that_processes_cannot_share_are_refused_with_the_arithmetic():
    assert accumulation_steps(32, 4, 2) == 4
    with pytest.raises(
        UserError,
        match=r"takes 8 rows, which 4 processes \(COTPIPE_NUM_PROCESSES\) with 4 rows each "
        r"\(micro_batch\), together 16, do not divide; lower the trainer's micro_batch to 2",
    ):
        accumulation_steps(8, 4, 4)
    with pytest.raises(UserError, match="set COTPIPE_NUM_PROCESSES to a divisor of 8"):
        accumulation_steps(8, 4, 3)


def test_siblings_that_the_launcher_stops_are_no_cause():
    log = """Sending process 42 closing signal SIGTERM
    Failures:
    [1]:
      rank      : 0 (local_rank: 0)
      exitcode  : -15 (pid: 42)  (SIGTERM)
    Root Cause (first observed failure):
    [0]:
      rank      : 1 (local_rank: 1)
      exitcode  : 1 (pid: 43)
    """
    assert exit_statuses(1, log) == {1}
    assert exit_statuses(1, log.replace(": 1 (pid", ": -9 (pid")) == {-9}
    assert exit_statuses(1, log.replace(": 1 (pid", ": -15 (pid")) == {-15}
    assert exit_statuses(-9, "") == {-9}
