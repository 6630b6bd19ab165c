import pytest

from cotpipe.config import Stage1, Stage2
from cotpipe.memory import ModelShape, needs_of

SHAPE = ModelShape(num_weights=10**9, num_layers=10, width=1000, num_heads=10, num_key_heads=2, vocabulary=50_000)


def gigabytes(stage, keeps_attention=False):
    return {need.what: round(need.gigabytes, 3) for need in needs_of(stage, SHAPE, keeps_attention)}


def test_all_weights_of_a_billion_take_sixteen_bytes_each():
    stage = Stage1(micro_batch=2, batch_size=2, max_length=1000)
    assert gigabytes(stage) == {
        "weights": 4.0,
        "gradients and AdamW": 12.0,
        "activations": 0.68,  # 34 x 1000 tokens x 2 rows x 1000 x 10 layers
        "logits": 1.0,  # 10 x 2 rows x 1000 tokens x 50,000
    }


def test_what_saves_memory():
    stage = Stage1(micro_batch=2, batch_size=2, max_length=1000)
    assert gigabytes(stage, keeps_attention=True)["activations"] == 1.68  # 34 + 5 x 10 heads x 1000 / 1000
    checkpointing = stage.model_copy(update={"gradient_checkpointing": True})
    assert gigabytes(checkpointing, keeps_attention=True)["activations"] == 0.04
    adapters = Stage1.model_validate({"lora": {"rank": 16}})
    assert gigabytes(adapters)["gradients and AdamW"] == pytest.approx(0.023, abs=1e-3)  # 4 x 10 x 16 x 3 x 1000 x 12


def test_grpo_holds_a_cache_a_copy_and_with_kl_a_reference():
    stage = Stage2(max_prompt_length=300, max_new_tokens=100, group_size=8, prompts_per_step=4, micro_batch=4, kl=0.1)
    found = gigabytes(stage)
    assert found["KV cache"] == 0.102  # 4 x 200 x 10 layers x 32 completions x 400 tokens
    assert (found["copy that writes"], found["reference"]) == (2.0, 4.0)
    assert found["logits"] == 0.2  # completions alone are scored
    assert "reference" not in gigabytes(stage.model_copy(update={"kl": 0.0}))
