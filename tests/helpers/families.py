"""The smallest models of several families, with random weights."""

from typing import Any

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
