"""The real trainers on a tiny student, in this process."""

from pathlib import Path

import pytest
import torch
from lessons import TABLE
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from cotpipe.config import Masks, Reward, Stage1, Stage2, Stage3
from cotpipe.errors import RunError, UserError
from cotpipe.examples import stage1_examples, stage2_examples, stage3_examples
from cotpipe.rows import Example, write_rows
from cotpipe.training.job import Stage1Job, Stage2Job, Stage3Job
from cotpipe.training.launch import train

LORA = {"rank": 2, "alpha": 4, "dropout": 0.0}


def paths(tmp_path: Path, student: Path, rows) -> dict:
    write_rows(tmp_path / "examples.parquet", Example, rows)
    return {
        "student": student, "examples": tmp_path / "examples.parquet", "output": tmp_path / "model",
        "work": tmp_path / "work", "seed": 3, "checkpoint_seconds": 600,
    }  # fmt: skip


def run(job, on_saved=lambda saved: None):
    return train(job, 1, on_event=lambda event: None, on_saved=on_saved, on_line=lambda line: None)


def changed(student: Path, trained: Path) -> bool:
    before, after = load_file(student / "model.safetensors"), load_file(trained / "model.safetensors")
    assert before.keys() == after.keys(), "the checkpoint is not a plain one of the same model"
    return any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("lora", [None, LORA])
def test_stage1_learns(tmp_path, tiny_student, lora):
    stage = Stage1(num_epochs=6, batch_size=8, micro_batch=4, learning_rate=0.01, max_length=400, lora=lora)
    job = Stage1Job(stage=stage, **paths(tmp_path, tiny_student, stage1_examples(TABLE, stage, 1)))
    rows, events = run(job)
    assert (rows.rows_kept, rows.rows_dropped) == (96, 0)
    assert [event.step for event in events] == list(range(1, 13))
    losses = [event.figures["loss"] for event in events]
    assert sum(losses[-3:]) < sum(losses[:3])
    assert changed(tiny_student, job.output)
    AutoModelForCausalLM.from_pretrained(job.output)
    assert AutoTokenizer.from_pretrained(job.output).chat_template


def test_stage1_gives_the_same_weights_again(tmp_path, tiny_student):
    stage = Stage1(batch_size=8, micro_batch=4, max_length=400)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        job = Stage1Job(stage=stage, **paths(tmp_path / name, tiny_student, stage1_examples(TABLE, stage, 1)))
        run(job)
    assert not changed(tmp_path / "a" / "model", tmp_path / "b" / "model")


@pytest.mark.parametrize("unit", ["words", "tokens"])
def test_stage2_and_3_run_grpo(tmp_path, tiny_student, unit):
    options = {
        "group_size": 2, "prompts_per_step": 4, "micro_batch": 4, "max_new_tokens": 8, "learning_rate": 0.01,
        "kl": 0.05, "reward": Reward(length_unit=unit),
    }  # fmt: skip
    stage2 = Stage2(**options, masks=Masks(amount="half"))
    stage3 = Stage3(**options)
    jobs = [
        (Stage2Job, stage2, stage2_examples(TABLE[:8], stage2, 1)),
        (Stage3Job, stage3, stage3_examples(TABLE[:8], stage3, 1)),
    ]
    for kind, stage, rows in jobs:
        folder = tmp_path / kind.__name__
        folder.mkdir()
        job = kind(stage=stage, **paths(folder, tiny_student, rows))
        _, events = run(job)
        assert [event.step for event in events] == [1, 2]
        assert events[0].figures["reward"] == -2  # a random student is never right
        assert events[0].figures["completion_tokens"] <= 8
        AutoModelForCausalLM.from_pretrained(job.output)


def test_rows_that_do_not_fit_are_the_users_mistake(tmp_path, tiny_student):
    stage = Stage1(batch_size=8, micro_batch=4, max_length=20)
    job = Stage1Job(stage=stage, **paths(tmp_path, tiny_student, stage1_examples(TABLE, stage, 1)))
    with pytest.raises(UserError, match="none of the 16 training rows fits into 20 tokens"):
        run(job)


def test_a_process_that_dies_is_a_failed_run(tmp_path, tiny_student):
    stage = Stage1(batch_size=8, micro_batch=4)
    job = Stage1Job(stage=stage, **paths(tmp_path, tmp_path / "no-model", stage1_examples(TABLE, stage, 1)))
    with pytest.raises(RunError, match="training of stage1 ended with status 1: .*no-model"):
        run(job)


def test_scoring_targets_only_changes_nothing_but_the_time(tiny_student, monkeypatch):
    import trl.trainer.utils
    from trl.trainer.utils import add_fused_lm_head

    from cotpipe.training.cpu import score_targets_only

    if torch.cuda.is_available():
        pytest.skip("a GPU scores the targets only by itself")
    monkeypatch.setattr(trl.trainer.utils, "_use_triton", trl.trainer.utils._use_triton)  # put back at the end
    labels = torch.randint(3, 200, (2, 12))
    labels[:, :7] = -100
    kernel = trl.trainer.utils._ChunkedLogProbFunction.apply
    losses, gradients, scored = [], [], []

    class Counting:
        @staticmethod
        def apply(hidden, *rest):
            scored.append(len(hidden))
            return kernel(hidden, *rest)

    monkeypatch.setattr(trl.trainer.utils, "_ChunkedLogProbFunction", Counting)
    for prepare in (lambda: None, score_targets_only):
        prepare()
        model = AutoModelForCausalLM.from_pretrained(tiny_student)
        add_fused_lm_head(model)
        output = model(input_ids=labels.clamp(min=3), labels=labels, fused_lm_head=True)
        output.loss.backward()
        losses.append(output.loss.item())
        gradients.append(model.model.embed_tokens.weight.grad)
    assert scored == [22, 10]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)
