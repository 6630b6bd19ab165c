"""The smallest models of several families, with random weights, and what `generate` writes with them."""

from typing import Any

import torch
from transformers import AutoConfig

PADDING = 0
FAMILIES = ["llama", "mistral", "olmo2", "qwen2", "qwen3", "smollm3"]
"""Those with plain attention."""


def config_of(family: str, **fields: Any):
    """The configuration of a model of a family: 61 tokens, two layers, end token 2."""
    return AutoConfig.for_model(
        family, vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=64, pad_token_id=PADDING, bos_token_id=None,
        eos_token_id=2, **fields,
    )  # fmt: skip


def enliven(model) -> None:
    """Enlarge random weights, with which a model repeats one token."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)


def written_alone(model, prompt: list[int], max_new_tokens: int, ends: list[int]) -> list[int]:
    """What transformers' `generate` writes greedily, up to its end token."""
    output = model.generate(
        torch.tensor([prompt]), do_sample=False, max_new_tokens=max_new_tokens,
        eos_token_id=ends, pad_token_id=PADDING,
    )  # fmt: skip
    return output[0, len(prompt) :].tolist()
