"""A stage that is killed in training and resumed is the stage that was not killed."""

import shutil
from pathlib import Path

import pytest
import torch
from lessons import TABLE
from safetensors.torch import load_file

from cotpipe.config import Masks, Stage1, Stage2
from cotpipe.examples import stage1_examples, stage2_examples
from cotpipe.rows import Example, write_rows
from cotpipe.training.job import Event, Saved, Stage1Job, Stage2Job
from cotpipe.training.launch import train

LORA = {"rank": 2, "alpha": 4, "dropout": 0.1}


class KilledError(Exception):
    """Stands for the signal that ends the launcher, and with it the training process."""


def stage1_job(lora) -> tuple[type, object, object]:
    stage = Stage1(
        num_epochs=3, batch_size=8, micro_batch=4, learning_rate=0.01, warmup_steps=2, max_length=400, lora=lora
    )
    return Stage1Job, stage, stage1_examples(TABLE, stage, 1)


def stage2_job(lora) -> tuple[type, object, object]:
    stage = Stage2(
        num_epochs=3, group_size=2, prompts_per_step=8, micro_batch=4, max_new_tokens=8, learning_rate=0.01, kl=0.05,
        masks=Masks(amount="half"), lora=lora,
    )  # fmt: skip
    return Stage2Job, stage, stage2_examples(TABLE, stage, 1)


def figures(events: list[Event]) -> list[tuple[int, dict]]:
    return [(event.step, event.figures) for event in events]


@pytest.mark.parametrize(("make", "lora"), [(stage1_job, LORA), (stage2_job, None)])
def test_resumed_is_as_if_never_killed(tmp_path, tiny_student, make, lora):
    kind, stage, examples = make(lora)
    write_rows(tmp_path / "examples.parquet", Example, examples)

    def run(name: str, resume: Path | None, kill_at: int | None) -> tuple[list[Event], dict]:
        job = kind(
            stage=stage, student=tiny_student, examples=tmp_path / "examples.parquet", output=tmp_path / name,
            work=tmp_path / f"{name}-work", seed=3, resume=resume, checkpoint_seconds=0,
        )  # fmt: skip

        def keep(saved: Saved) -> None:
            assert not [path for path in saved.folder.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl")]
            if saved.step == kill_at:
                shutil.copytree(saved.folder, tmp_path / "kept")
                raise KilledError

        _, events = train(job, 1, on_event=lambda event: None, on_saved=keep, on_line=print)
        return events, load_file(job.output / "model.safetensors")

    whole, weights = run("whole", resume=None, kill_at=None)
    with pytest.raises(KilledError):
        run("killed", resume=None, kill_at=4)  # in the second epoch, where TRL's own resume goes astray
    assert not (tmp_path / "killed").exists()
    resumed, again = run("resumed", resume=tmp_path / "kept", kill_at=None)
    assert figures(resumed) == figures(whole)
    assert [event.step for event in resumed] == list(range(1, 7))
    assert all(torch.equal(weights[name], again[name]) for name in weights)
