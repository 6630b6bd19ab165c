import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from cotpipe.hardware.attention import GROUPED


@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("padding", [0, 3])
def test_grouped_attention_is_eager_attention(key_heads, padding):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=key_heads,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    tokens = torch.randint(0, 64, (3, 9))
    mask = torch.ones_like(tokens)
    mask[0, :padding] = 0
    results = []
    for implementation in ("eager", GROUPED):
        model.set_attn_implementation(implementation)
        logits = model(input_ids=tokens, attention_mask=mask).logits[mask.bool()]
        loss = logits.log_softmax(-1)[:, 3].sum()
        gradient = torch.autograd.grad(loss, list(model.parameters()))
        written = model.generate(
            tokens, attention_mask=mask, max_new_tokens=8, do_sample=False, pad_token_id=0
        )
        results.append((logits, torch.cat([part.flatten() for part in gradient]), written))
    assert torch.allclose(results[0][0], results[1][0], atol=1e-5)
    assert torch.allclose(results[0][1], results[1][1], atol=1e-4)
    assert torch.equal(results[0][2], results[1][2])
