"""Training in float16 with loss scaling, as on GPUs without bfloat16: here on a CPU, with torch's own scaler."""

import json
import math
from io import StringIO

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerControl, TrainerState
from trl import SFTConfig

from cotpipe.errors import UserError
from cotpipe.recipe.stages import Stage
from cotpipe.steps.examples import examples
from cotpipe.training.data import sft_row
from cotpipe.training.progress import ReportProgress
from cotpipe.training.resume import SaveTrainingState
from cotpipe.training.sft import TargetTrainer
from tests.helpers.lessons import TABLE

STAGE = Stage.model_validate(
    {
        "name": "stage1",
        "examples": {"task": "reconstruction"},
        "trainer": {"kind": "sft", "batch_size": 4, "micro_batch": 2, "max_length": 400},
    }
)
USUAL, TOO_HIGH = 2.0**16, 2.0**40


def trained(student, folder, *, scale: float | None, resume=None):
    """Four optimizer steps; with a scale in float16."""
    tokenizer = AutoTokenizer.from_pretrained(student)
    output = StringIO()
    trainer = TargetTrainer(
        tokens=[1] * 10,
        model=AutoModelForCausalLM.from_pretrained(student),
        args=SFTConfig(
            output_dir=str(folder), use_cpu=True, bf16=False, fp16=scale is not None, max_length=400,
            per_device_train_batch_size=2, gradient_accumulation_steps=2, learning_rate=0.01, logging_steps=1,
            logging_nan_inf_filter=False, save_strategy="no", completion_only_loss=True, disable_tqdm=True,
            report_to=[], num_train_epochs=1, gradient_checkpointing=False,
        ),
        train_dataset=Dataset.from_list([sft_row(row, tokenizer) for row in examples(TABLE, STAGE, 1)]),
        processing_class=tokenizer,
        callbacks=[ReportProgress(STAGE, output), SaveTrainingState(0, StringIO())],
    )  # fmt: skip
    if scale is not None:  # what accelerate does on a GPU
        trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        trainer.accelerator.native_amp = True
    trainer.train(resume_from_checkpoint=resume)
    events = [json.loads(line) for line in output.getvalue().splitlines()]
    return trainer, [event["figures"] for event in events]


def test_the_scaled_loss_teaches_what_float32_teaches(tmp_path, tiny_student):
    exact, expected = trained(tiny_student, tmp_path / "exact", scale=None)
    half, found = trained(tiny_student, tmp_path / "half", scale=USUAL)
    assert (
        next(exact.model.parameters()).dtype == next(half.model.parameters()).dtype == torch.float32
    )
    losses = [figures["loss"] for figures in found]
    assert losses == pytest.approx([figures["loss"] for figures in expected], rel=5e-3)
    assert losses != [figures["loss"] for figures in expected]
    norms = [figures["gradient_norm"] for figures in found]
    assert norms == pytest.approx([figures["gradient_norm"] for figures in expected], rel=0.05)


def test_a_gradient_that_overflows_is_skipped_and_the_scale_comes_down(tmp_path, tiny_student):
    trainer, found = trained(tiny_student, tmp_path, scale=TOO_HIGH)
    has_norm = ["gradient_norm" in figures for figures in found]
    assert not has_norm[0]
    assert trainer.accelerator.scaler.get_scale() == TOO_HIGH / 2 ** has_norm.count(False)
    assert all(math.isfinite(value) for figures in found for value in figures.values())


def test_the_scale_is_part_of_a_training_state(tmp_path, tiny_student):
    whole, expected = trained(tiny_student, tmp_path, scale=TOO_HIGH)
    state = tmp_path / "checkpoint-2"
    assert {path.suffix for path in state.iterdir()} <= {".json", ".safetensors", ".jinja"}
    resumed, found = trained(tiny_student, tmp_path / "on", scale=TOO_HIGH, resume=str(state))
    assert found == expected
    assert resumed.accelerator.scaler.state_dict() == whole.accelerator.scaler.state_dict()
    for one, other in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_gradients_that_always_overflow_end_the_stage():
    progress = ReportProgress(STAGE, StringIO())
    state = TrainerState(is_world_process_zero=True, max_steps=100)

    def log(norm: float, loss: float = 1.0, fp16: bool = True) -> None:
        args = SFTConfig(output_dir="x", use_cpu=True, bf16=False, fp16=fp16, report_to=[])
        state.global_step += 1
        progress.on_log(args, state, TrainerControl(), {"loss": loss, "grad_norm": norm})

    for _ in range(24):
        log(math.inf)
    log(1.0)
    for _ in range(24):
        log(math.nan)
    with pytest.raises(UserError, match=r"gradient_norm is inf .*COTPIPE_PRECISION=float32"):
        log(math.inf)
    with pytest.raises(UserError, match=r"loss is nan .*COTPIPE_PRECISION=float32"):
        log(1.0, loss=math.nan)
    with pytest.raises(UserError, match="gradient_norm is inf at"):
        log(math.inf, fp16=False)
