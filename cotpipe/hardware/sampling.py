"""Drawing tokens from a model's logits."""

import torch


def draw(logits: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """A token per row of logits, (rows, vocabulary).

    With `top_p`, from the fewest tokens that together have that probability (nucleus sampling,
    Holtzman et al., 2020).

    Args:
        logits: (rows, vocabulary).
        temperature: Divides the logits; 0 takes the most likely token.
        top_p: Share of the probability, in (0, 1].
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    shares = torch.softmax(logits.float() / temperature, dim=-1)
    drawn = _inverse(shares)
    if top_p == 1:
        return drawn
    outside = torch.arange(len(shares), device=shares.device)
    while len(outside):  # drawn again until it is of the nucleus: far faster than sorting
        tried = shares[outside]
        share = tried.gather(1, drawn[outside, None])
        likelier = tried.masked_fill(tried <= share, 0).sum(dim=-1)
        outside = outside[likelier >= top_p]
        drawn[outside] = _inverse(shares[outside])
    return drawn


def _inverse(shares: torch.Tensor) -> torch.Tensor:
    """Draw an index per row by inverting the distribution: far faster than `multinomial`."""
    summed = shares.cumsum(dim=-1)
    aim = torch.rand((len(shares), 1), device=shares.device) * summed[:, -1:]
    return torch.searchsorted(summed, aim, right=True)[:, 0].clamp(max=shares.shape[1] - 1)
