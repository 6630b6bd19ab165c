"""Several training processes give the rows and the loss of one, and their failures are told as what they are."""

import os
import shutil
import signal
from dataclasses import replace

import psutil
import pytest
import torch
from safetensors.torch import load_file

from cotpipe.data.rows import Example, write_rows
from cotpipe.errors import RunError, UserError
from cotpipe.recipe.stages import Stage
from cotpipe.steps.examples import examples
from cotpipe.training.endings import KilledError
from cotpipe.training.job import Job
from cotpipe.training.launch import train
from cotpipe.training.processes import accumulation_steps, exit_statuses, require_even_shares
from tests.helpers.lessons import TABLE, Table
from tests.helpers.training import train_here

REWARD = """
from cotpipe.rationale.rewards import RewardParts

def spread(completion, target, length):
    found = sum(map(ord, completion)) % 5 / 4
    return RewardParts(found, found > 0.5, found > 0.25, found, 0.0, 0.0)
"""
SFT = {"kind": "sft", "batch_size": 8, "micro_batch": 2, "max_length": 400, "learning_rate": 0.01}
GRPO = {
    "kind": "grpo", "group_size": 2, "prompts_per_step": 4, "micro_batch": 2, "max_new_tokens": 8,
    "learning_rate": 0.01, "kl": 0.05,
}  # fmt: skip
POOL = GRPO | {"replacements": 3}
ADAPTERS = {"lora": {"rank": 2, "alpha": 4, "dropout": 0.0}}  # dropout is drawn by each process


def job_of(folder, student, trainer, **options) -> Job:
    folder.mkdir(exist_ok=True)
    task, name = ("reconstruction", "stage1")
    if trainer["kind"] == "grpo":
        task, name = ("completion", "stage2")
        (folder / "mine.py").write_text(REWARD)
        trainer = trainer | {"reward": {"preset": f"{folder / 'mine.py'}:spread"}}
    pooled = "replacements" in trainer
    section = {"task": task, "num_epochs": 2, "pass_rates": {} if pooled else None}
    stage = Stage.model_validate({"name": name, "examples": section, "trainer": trainer})
    plain = stage.examples.model_copy(update={"pass_rates": None, "num_epochs": 2 - pooled})
    # GRPO: two optimizer steps of four prompts to an epoch, and a prompt is left over.
    lessons = TABLE if trainer["kind"] == "sft" else Table(TABLE[:9])
    rows = list(examples(lessons, stage.model_copy(update={"examples": plain}), 1))
    if pooled:
        rows = [replace(row, pass_rate=place % 4 / 4) for place, row in enumerate(rows)]
    write_rows(folder / "examples.parquet", Example, rows)
    return Job(
        stage=stage, answers="number", student=student, examples=folder / "examples.parquet",
        output=folder / "model", work=folder / "work", seed=3, **{"training_state_seconds": 600, "precision": "float32"} | options,
    )  # fmt: skip


def run(job, processes, on_event=print, on_training_state=print):
    return train(job, processes, on_event, on_training_state, on_line=print)


class AbortedError(Exception):
    """Stands for the signal that ends the launcher, and with it all processes."""


def keeps(folder, step=2, kills=False):
    """Keeps the training state of a step."""

    def keep(saved):
        if saved.step == step:
            shutil.copytree(saved.folder, folder)
            if kills:
                raise AbortedError

    return keep


def assert_same_training(found, expected, folder, expected_folder):
    """The same rows and completions, and the same figures and weights but for rounding."""

    def others(event):
        return {name: one for name, one in event.figures.items() if name != "token_accuracy"}

    assert found.rows == expected.rows
    assert [event.step for event in found.events] == [1, 2, 3, 4]
    for event, other in zip(found.events, expected.events, strict=True):
        # TRL's accuracy is a mean over forward passes, which two processes make together.
        accuracies = [one.figures.get("token_accuracy", 0.0) for one in (event, other)]
        assert accuracies[0] == pytest.approx(accuracies[1], abs=2e-3), event.step
        assert others(event) == pytest.approx(others(other), rel=1e-3, abs=1e-5), event.step
        for exact in {"trained_tokens", "sampled_tokens", "correct"} & event.figures.keys():
            assert event.figures[exact] == other.figures[exact]
    weights = load_file(folder / "model" / "model.safetensors")
    expected_weights = load_file(expected_folder / "model" / "model.safetensors")
    torch.testing.assert_close(weights, expected_weights, rtol=1e-3, atol=2e-5)


BACK, ON, UP = (2, 1), (2, 2), (1, 2)
"""Processes of the training that is killed, and of the one that goes on."""


@pytest.mark.parametrize(
    ("trainer", "parallel", "resumed_by"),
    [
        pytest.param(SFT, "ddp", [ON, BACK, UP], id="sft"),
        pytest.param(GRPO, "ddp", [ON, BACK, UP], id="grpo"),
        pytest.param(POOL, "ddp", [ON], id="pool"),
        pytest.param(SFT, "fsdp", [BACK, UP], id="sft, weights shared out"),
        pytest.param(SFT | ADAPTERS, "fsdp", [ON, BACK], id="adapters, weights shared out"),
        pytest.param(GRPO, "fsdp", [ON], id="grpo, weights shared out"),
    ],
)
def test_two_processes_train_as_one_killed_and_resumed_by_as_many_or_others(
    tmp_path, tiny_student, trainer, parallel, resumed_by
):
    each = {"training_state_seconds": 0}
    job = job_of(tmp_path / "alone", tiny_student, trainer, **each)
    alone = train_here(job, on_training_state=keeps(tmp_path / "of one"))
    assert len({event.figures["loss"] for event in alone.events}) == 4
    if trainer is POOL:
        assert any(event.figures["replaced_prompts"] for event in alone.events)
    with pytest.raises(AbortedError):
        job = job_of(tmp_path / "killed", tiny_student, trainer, parallel=parallel, **each)
        run(job, 2, on_training_state=keeps(tmp_path / "of two", kills=True))
    assert not job.output.exists()
    for before, processes in resumed_by:
        name, state = f"{before} to {processes}", {1: "of one", 2: "of two"}[before]
        options = {"resume": tmp_path / state, "parallel": parallel}
        job = job_of(tmp_path / name, tiny_student, trainer, **options)
        resumed = run(job, 2) if processes == 2 else train_here(job)
        assert_same_training(resumed, alone, tmp_path / name, tmp_path / "alone")


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


def test_processes_that_would_divide_a_group_are_refused():
    trainer = GRPO | {"group_size": 4, "prompts_per_step": 2, "micro_batch": 1}
    stage = Stage.model_validate(
        {"name": "stage2", "examples": {"task": "completion"}, "trainer": trainer}
    )
    require_even_shares(stage, 2)
    with pytest.raises(
        UserError,
        match=r"stage2.trainer.prompts_per_step \(2\) is not a multiple of the number of processes "
        r"\(4, COTPIPE_NUM_PROCESSES\), .*set COTPIPE_NUM_PROCESSES to a divisor of 2",
    ):
        require_even_shares(stage, 4)


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
