"""Trainings that diverge, cannot save their state, or are killed: what is lost, and what is told."""

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig

from cotpipe.data.rows import Example, write_rows
from cotpipe.errors import UserError
from cotpipe.recipe.stages import Stage
from cotpipe.steps.examples import examples
from cotpipe.training.data import sft_row
from cotpipe.training.job import Job
from cotpipe.training.launch import train
from cotpipe.training.progress import ReportProgress
from cotpipe.training.resume import SaveTrainingState
from cotpipe.training.sft import TargetTrainer
from tests.helpers.lessons import TABLE

STAGE = Stage.model_validate(
    {
        "name": "stage1",
        "examples": {"task": "reconstruction"},
        "trainer": {"kind": "sft", "batch_size": 4, "micro_batch": 4, "max_length": 400},
    }
)


class Spoil(TrainerCallback):
    """Weights that are not numbers, before the third optimizer step."""

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step == 2:
            with torch.no_grad():
                next(model.parameters()).fill_(torch.nan)


def test_a_training_that_diverges_stops_and_keeps_the_state_before(tmp_path, tiny_student):
    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    rows = [sft_row(row, tokenizer) for row in examples(TABLE, STAGE, 1)]
    trainer = TargetTrainer(
        tokens=[1] * 10,
        model=AutoModelForCausalLM.from_pretrained(tiny_student),
        args=SFTConfig(
            output_dir=str(tmp_path), use_cpu=True, bf16=False, max_length=400, report_to=[],
            per_device_train_batch_size=4, logging_steps=1, logging_nan_inf_filter=False,
            save_strategy="no", completion_only_loss=True, disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[Spoil(), ReportProgress(STAGE), SaveTrainingState(0)],
    )  # fmt: skip
    with pytest.raises(
        UserError,
        match=r"stage1 diverged: (loss|gradient_norm) is nan at optimizer step 3; "
        r"lower stage1.trainer.learning_rate \(now 0.0001\)",
    ):
        trainer.train()
    states = sorted(path.name for path in tmp_path.glob("checkpoint-*"))
    assert states == ["checkpoint-1", "checkpoint-2"]


def test_a_training_state_that_cannot_be_written_is_left_out(tmp_path, tiny_student):
    write_rows(tmp_path / "examples.parquet", Example, examples(TABLE, STAGE, 1))
    job = Job(
        stage=STAGE, answers="number", student=tiny_student, examples=tmp_path / "examples.parquet",
        output=tmp_path / "model", work=tmp_path / "work", seed=3, training_state_seconds=0,
    )  # fmt: skip
    job.work.mkdir()
    (job.work / "checkpoint-2").write_text("in the way")
    saved, said = [], []
    train(job, 1, print, lambda state: saved.append(state.step), said.append)
    assert saved == [1, 3]
    assert any("no training state at step 2, the next one is tried again" in line for line in said)
    assert (job.output / "model.safetensors").is_file()
