"""Drawing tokens from a model's logits."""

from collections.abc import Sequence
from random import Random

import torch

_STEPS = 24
"""Bits of a number in [0, 1) that float32 holds exactly."""


def draw(
    logits: torch.Tensor,
    temperature: float,
    top_p: float,
    sources: Sequence[Random] | None = None,
) -> torch.Tensor:
    """A token per row of logits, (rows, vocabulary).

    With `top_p`, from the fewest tokens that together have that probability (nucleus sampling,
    Holtzman et al., 2020).

    Args:
        logits: (rows, vocabulary).
        temperature: Divides the logits; 0 takes the most likely token.
        top_p: Share of the probability, in (0, 1].
        sources: The randomness of each row; None: torch's generator for all.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    shares = torch.softmax(logits.float() / temperature, dim=-1)
    drawn = _inverse(shares, sources)
    if top_p == 1:
        return drawn
    outside = torch.arange(len(shares), device=shares.device)
    while len(outside):  # drawn again until it is of the nucleus: far faster than sorting
        tried = shares[outside]
        share = tried.gather(1, drawn[outside, None])
        likelier = tried.masked_fill(tried <= share, 0).sum(dim=-1)
        outside = outside[likelier >= top_p]
        again = None if sources is None else [sources[row] for row in outside.tolist()]
        drawn[outside] = _inverse(shares[outside], again)
    return drawn


def _inverse(shares: torch.Tensor, sources: Sequence[Random] | None) -> torch.Tensor:
    """Draw an index per row by inverting the distribution: far faster than `multinomial`."""
    summed = shares.cumsum(dim=-1)
    aim = _uniform(len(shares), sources, shares.device)[:, None] * summed[:, -1:]
    return torch.searchsorted(summed, aim, right=True)[:, 0].clamp(max=shares.shape[1] - 1)


def _uniform(count: int, sources: Sequence[Random] | None, device: torch.device) -> torch.Tensor:
    """A number in [0, 1) per row."""
    if sources is None:
        return torch.rand(count, device=device)
    numbers = [source.getrandbits(_STEPS) / 2**_STEPS for source in sources]
    return torch.tensor(numbers, dtype=torch.float32, device=device)
