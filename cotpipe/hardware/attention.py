"""Grouped-query attention for CPUs: one matrix product per key head, without copying keys."""

from typing import Any

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

GROUPED = "grouped"
"""Its name in transformers: `from_pretrained(..., attn_implementation=GROUPED)`."""


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Grouped-query attention (Ainslie et al., 2023), equivalent to transformers' `eager`.

    Args:
        module: The attention layer.
        query: (batch, query heads, queries, width); query heads are a multiple of key heads.
        key: (batch, key heads, keys, width).
        value: Same shape as `key`.
        attention_mask: (batch, 1, queries, keys), added to the scores.
        scaling: Factor applied to the scores.
        dropout: Dropout probability of the attention weights during training.

    Returns:
        The output, (batch, queries, query heads, width), and None for the attention weights.
    """
    batch, heads, queries, width = query.shape
    groups = key.shape[1]
    rows = query.reshape(batch, groups, heads // groups * queries, width)
    scores = torch.matmul(rows, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        by_head = scores.view(batch, groups, heads // groups, queries, -1)
        scores = (by_head + attention_mask[:, :, None, :, : key.shape[2]]).view(scores.shape)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = torch.nn.functional.dropout(weights, p=dropout, training=module.training)
    mixed = torch.matmul(weights, value).view(batch, heads, queries, width)
    return mixed.transpose(1, 2).contiguous(), None


ALL_ATTENTION_FUNCTIONS.register(GROUPED, grouped_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(GROUPED, eager_mask)
