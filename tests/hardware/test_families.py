"""Which models compute the same wherever their tokens lie, and that they do."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from cotpipe.hardware.attention import GROUPED
from cotpipe.hardware.decoding import Decoder
from cotpipe.hardware.families import has_plain_attention
from tests.helpers.families import FAMILIES, config_of, enliven, written_alone


@pytest.mark.parametrize(
    ("config", "is_plain"),
    [
        (config_of("llama"), True),
        (config_of("qwen2"), True),
        (config_of("qwen2", use_sliding_window=True, sliding_window=8, max_window_layers=1), False),
        (config_of("mistral", sliding_window=8), False),
        (config_of("gemma3_text"), False),  # windows in most layers
        (AutoConfig.for_model("mamba2"), False),
        (AutoConfig.for_model("qwen3_next"), False),  # linear attention
        (AutoConfig.for_model("llava"), False),  # images
        (AutoConfig.for_model("gpt2"), False),  # not tested
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_models_that_need_their_rows_apart_are_left_to_transformers_and_trl(config, is_plain):
    assert has_plain_attention(config) is is_plain


@pytest.mark.parametrize("attention", [GROUPED, "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_that_enter_and_leave_are_written_as_alone(family, attention):
    torch.manual_seed(0)
    config = config_of(family, sliding_window=None)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    enliven(model)
    common = list(range(20, 30))
    prompts = [[*common, *range(3, 3 + length)] for length in (1, 2, 5, 9, 14)]
    free = [written_alone(model, prompt, 30, []) for prompt in prompts]
    ends = [free[0][4], free[2][11]]
    expected = [written_alone(model, prompt, 30, ends) for prompt in prompts]
    assert len({len(tokens) for tokens in expected}) > 1
    found = Decoder(model, ends, 2).complete(prompts, 2, 0, 1, 30)
    assert found == [[tokens] * 2 for tokens in expected]
