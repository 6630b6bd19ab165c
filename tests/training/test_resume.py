"""A stage that is killed in training and resumed is the stage that was not killed."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cotpipe.data.rows import Example, Rollout, read_rows, write_rows
from cotpipe.recipe.stages import Stage
from cotpipe.steps.examples import examples
from cotpipe.training.job import Job
from cotpipe.training.launch import train
from cotpipe.training.messages import Event, SavedTrainingState
from tests.helpers.lessons import TABLE
from tests.helpers.training import train_here

LORA = {"rank": 2, "alpha": 4, "dropout": 0.1}


class KilledError(Exception):
    """Stands for the signal that ends the launcher, and with it the training process."""


SFT = {
    "kind": "sft", "batch_size": 8, "micro_batch": 4, "learning_rate": 0.01, "warmup_steps": 2,
    "max_length": 400, "lora": LORA,
}  # fmt: skip
GRPO = {
    "kind": "grpo", "group_size": 2, "prompts_per_step": 8, "micro_batch": 4, "max_new_tokens": 8,
    "learning_rate": 0.01, "kl": 0.05,
}  # fmt: skip
STAGES = [
    {"name": "stage1", "examples": {"task": "reconstruction", "num_epochs": 3}, "trainer": SFT},
    {
        "name": "stage2",
        "examples": {"task": "completion", "num_epochs": 3, "masks": {"amount": "half"}},
        "trainer": GRPO,
    },
]


def figures(events: list[Event]) -> list[tuple[int, dict]]:
    return [(event.step, event.figures) for event in events]


@pytest.mark.parametrize("values", STAGES, ids=["sft", "grpo"])
def test_resumed_is_as_if_never_killed(tmp_path, tiny_student, values):
    stage = Stage.model_validate(values)
    write_rows(tmp_path / "examples.parquet", Example, examples(TABLE, stage, 1))

    def run(name: str, resume: Path | None, kill_at: int | None) -> tuple[list[Event], dict]:
        (tmp_path / name).mkdir()
        job = Job(
            stage=stage, answers="number", student=tiny_student, examples=tmp_path / "examples.parquet",
            output=tmp_path / name / "model", work=tmp_path / f"{name}-work", seed=3, resume=resume, training_state_seconds=0,
        )  # fmt: skip

        def keep(saved: SavedTrainingState) -> None:
            assert not [
                path
                for path in saved.folder.rglob("*")
                if path.suffix in (".bin", ".pt", ".pth", ".pkl")
            ]
            if saved.step == kill_at:
                shutil.copytree(saved.folder, tmp_path / "kept")
                raise KilledError

        if kill_at:  # a process of its own
            trained = train(job, 1, on_event=print, on_training_state=keep, on_line=print)
        else:
            trained = train_here(job, on_training_state=keep)
        if job.rollouts.exists():
            rollouts[name] = list(read_rows(job.rollouts, Rollout))
        return trained.events, load_file(job.output / "model.safetensors")

    rollouts: dict[str, list[Rollout]] = {"whole": [], "resumed": []}
    whole, weights = run("whole", resume=None, kill_at=None)
    with pytest.raises(KilledError):
        run(
            "killed", resume=None, kill_at=4
        )  # in the second epoch, where TRL's own resume goes astray
    assert not any((tmp_path / "killed").iterdir())
    resumed, again = run("resumed", resume=tmp_path / "kept", kill_at=None)
    assert figures(resumed) == figures(whole)
    assert [event.step for event in resumed] == list(range(1, 7))
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert rollouts["resumed"] == rollouts["whole"]
    if values["trainer"]["kind"] == "grpo":
        assert [row.step for row in rollouts["whole"]] == [
            step for step in range(1, 7) for _ in range(16)
        ]
