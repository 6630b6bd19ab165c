"""How much memory a training takes, and what happens where there is less."""

import os
import subprocess
import sys

import pytest
from transformers import LlamaConfig, Qwen3Config

from cotpipe.recipe.trainers import Grpo, Sft
from cotpipe.training.memory import ModelShape, needs_of, shape_of
from tests.helpers.flow_runs import TINY
from tests.helpers.polling import PATIENCE

SHAPE = ModelShape(
    num_weights=10**9, num_layers=10, width=1000, num_heads=10, key_width=200, vocabulary=50_000
)


def gigabytes(stage, keeps_attention=False, num_bytes=2, num_holders=1):
    needs = needs_of(stage, SHAPE, keeps_attention, num_bytes, num_holders)
    return {need.what: round(need.gigabytes, 3) for need in needs}


def test_all_weights_of_a_billion_take_sixteen_bytes_each():
    stage = Sft(micro_batch=2, batch_size=2, max_length=1000)
    assert gigabytes(stage) == {
        "weights": 4.0,
        "gradients and AdamW": 12.0,
        "activations": 0.68,  # 34 x 1000 tokens x 2 rows x 1000 x 10 layers
        "logits": 1.0,  # 10 x 2 rows x 1000 tokens x 50,000
    }


def test_processes_share_out_what_is_trained_and_not_what_they_compute():
    stage = Grpo(kl=0.1, micro_batch=2, max_new_tokens=100)
    alone, shared = gigabytes(stage), gigabytes(stage, num_holders=4)
    divided = {"weights", "gradients and AdamW", "reference model"}
    assert {what for what in alone if shared[what] == alone[what] / 4} == divided
    assert {what for what in alone if shared[what] == alone[what]} == set(alone) - divided


def test_what_saves_memory():
    stage = Sft(micro_batch=2, batch_size=2, max_length=1000)
    assert (
        gigabytes(stage, keeps_attention=True)["activations"] == 1.68
    )  # 34 + 5 x 10 heads x 1000 / 1000
    checkpointing = stage.model_copy(update={"gradient_checkpointing": True})
    assert gigabytes(checkpointing, keeps_attention=True)["activations"] == 0.04
    adapters = Sft.model_validate({"lora": {"rank": 16}})
    assert gigabytes(adapters)["gradients and AdamW"] == pytest.approx(
        0.023, abs=1e-3
    )  # 4 x 10 x 16 x 3 x 1000 x 12


def test_float32_takes_twice_the_room_for_all_but_weights_and_optimizer():
    stage = Sft(micro_batch=2, batch_size=2, max_length=1000, keep="best")
    short, long = (gigabytes(stage, num_bytes=size) for size in (2, 4))
    for what in ("activations", "KV cache", "copy for generation"):
        assert long[what] == 2 * short[what]
    assert (long["weights"], long["logits"]) == (short["weights"], 1.2)


def test_heads_may_be_wider_than_their_share_of_the_width():
    config = Qwen3Config(
        vocab_size=100, hidden_size=64, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=32,
    )  # fmt: skip
    assert shape_of(config).key_width == 64
    assert shape_of(LlamaConfig(
        vocab_size=100, hidden_size=64, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2,
    )).key_width == 32  # fmt: skip


def test_fine_tuning_that_validates_holds_a_cache_and_a_copy():
    found = gigabytes(Sft(max_length=1000, keep="best"))
    assert found["KV cache"] == 0.512  # 4 x 200 x 10 layers x 64 answers x 1000 tokens
    assert found["copy for generation"] == 2.0


def test_grpo_holds_a_cache_a_copy_and_with_kl_a_reference():
    stage = Grpo(
        max_prompt_length=300,
        max_new_tokens=100,
        group_size=8,
        prompts_per_step=4,
        micro_batch=4,
        kl=0.1,
    )
    found = gigabytes(stage)
    assert found["KV cache"] == 0.102  # 4 x 200 x 10 layers x 32 completions x 400 tokens
    assert (found["copy for generation"], found["reference model"]) == (2.0, 4.0)
    assert found["logits"] == 0.2  # completions alone are scored
    assert "reference model" not in gigabytes(stage.model_copy(update={"kl": 0.0}))


def test_memory_that_is_too_small_halves_the_micro_batch(tmp_path, tiny_student):
    """A real shortage: the training may take so much memory that 32 rows do not fit, and fewer do."""
    code = """
import resource, sys
from cotpipe.steps.curriculum import needed_for, steps_of
from cotpipe.recipe.files import load_recipe
from cotpipe.settings import Settings
from cotpipe.progress import Silent
from cotpipe.steps.runner import StepRunner
from cotpipe.store.artifacts import open_store

resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[2]) << 20,) * 2)
changes = [f"student.model={sys.argv[1]}", "stage1.trainer.max_length=1024", "stage1.examples.max_problems=32"]
recipe = load_recipe(sys.argv[3], [*changes, "stage1.trainer.batch_size=32", "stage1.trainer.micro_batch=32"])
runner, found = StepRunner(open_store(Settings()), Settings(), Silent()), {}
steps = steps_of(recipe)
for kind in needed_for("stage1", steps):
    inputs = {name: found[name] for name in steps[kind].inputs}
    outcome = runner.run(steps[kind], recipe, inputs)
    found[kind] = outcome.reference
print(outcome.record.counts["micro_batch"])
"""
    environment = os.environ | {"COTPIPE_STORE": str(tmp_path / "store"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_student), "2200", TINY],
        capture_output=True, text=True, env=environment, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) < 32
    assert "out of memory" in done.stderr
