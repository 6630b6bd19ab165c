"""Rollouts: completions written by the student in this process, many to a prompt.

A prompt is computed once for all its completions, keys and values are written in place, and
finished completions leave the batch.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer

from cotpipe.engines.transformers_engine import end_tokens
from cotpipe.training.packing import can_be_packed

_BLOCK = 32
"""Tokens by which the cache grows: attention is slow on tensors that are not whole (a slice)."""


class Rollouts:
    """Writes completions with a model; where its rows need a cache of their own, by `generate`."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int = 64
    ) -> None:
        """Completions end at the tokenizer's end token and at all those of the generation config.

        Args:
            model: A causal language model, in the dtype to compute in.
            tokenizer: Its tokenizer.
            batch_size: Number of completions that are written at a time.
        """
        self._model: Any = model
        self._ends = end_tokens(model.generation_config, tokenizer)
        self._batch_size = batch_size
        self._write = self._in_place if can_be_packed(model.config) else self._generated

    def complete(
        self,
        prompts: Sequence[list[int]],
        samples: int,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
    ) -> list[list[list[int]]]:
        """Complete each prompt several times; draws from torch's generator.

        Args:
            prompts: Tokens of each prompt, at least one.
            samples: Completions per prompt.
            temperature: Sampling temperature; 0 takes the most likely token.
            top_p: Share of the probability from which tokens are drawn.
            max_new_tokens: Maximum length of a completion (tokens).

        Returns:
            The tokens of each prompt's completions, the end token included.
        """
        asked = [index for index in range(len(prompts)) for _ in range(samples)]
        completions: list[list[list[int]]] = [[] for _ in prompts]
        was_training = self._model.training
        self._model.eval()
        with torch.inference_mode():
            for start in range(0, len(asked), self._batch_size):
                batch = asked[start : start + self._batch_size]
                rows = [prompts[index] for index in batch]
                written = self._write(rows, temperature, top_p, max_new_tokens)
                for index, tokens in zip(batch, written, strict=True):
                    completions[index].append(tokens)
        self._model.train(was_training)
        return completions

    def _generated(
        self, prompts: list[list[int]], temperature: float, top_p: float, max_new_tokens: int
    ) -> list[list[int]]:
        """By transformers' `generate`, which knows every kind of cache."""
        width = max(map(len, prompts))
        padding = [width - len(prompt) for prompt in prompts]
        output = self._model.generate(
            torch.tensor(
                [[0] * left + prompt for left, prompt in zip(padding, prompts, strict=True)],
                device=self._model.device,
            ),
            attention_mask=torch.tensor(
                [[0] * left + [1] * (width - left) for left in padding], device=self._model.device
            ),
            max_new_tokens=max_new_tokens,
            eos_token_id=sorted(self._ends) or None,
            pad_token_id=0,
            top_k=0,
            **(
                {"do_sample": True, "temperature": temperature, "top_p": top_p}
                if temperature
                else {"do_sample": False}
            ),
        )
        return [self._ended(row) for row in output[:, width:].tolist()]

    def _ended(self, tokens: list[int]) -> list[int]:
        """The tokens up to the first end token, and this."""
        ends = (place for place, token in enumerate(tokens, start=1) if token in self._ends)
        return tokens[: next(ends, len(tokens))]

    def _in_place(
        self, prompts: list[list[int]], temperature: float, top_p: float, max_new_tokens: int
    ) -> list[list[int]]:
        rows = _Batch(self._model, prompts)
        written: list[list[int]] = [[] for _ in rows.logits]
        going = list(range(len(written)))
        while going:
            drawn = draw(rows.logits, temperature, top_p)
            ended = []
            for place, token in enumerate(drawn.tolist()):
                tokens = written[going[place]]
                tokens.append(token)
                if token in self._ends or len(tokens) == max_new_tokens:
                    ended.append(place)
            moves = _moves(len(going), ended)
            for hole, last in moves:
                going[hole] = going[last]
                drawn[hole] = drawn[last]
            del going[len(going) - len(ended) :]
            if going:
                rows.keep(len(going), moves)
                rows.enter(drawn[: len(going)])
        return written


def _moves(count: int, ended: list[int]) -> list[tuple[int, int]]:
    """Which rows go into the places of ended ones, so that the first rows are those that go on."""
    remaining = count - len(ended)
    holes = [place for place in ended if place < remaining]
    lasts = [place for place in range(remaining, count) if place not in set(ended)]
    return list(zip(holes, lasts, strict=True))


class _Batch:
    """Rows that are being written, and the logits of the next token of each."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[list[int]]) -> None:
        """Computes every distinct prompt once."""
        self._model = model
        device = model.device
        distinct = {
            tuple(prompt): place for place, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))
        }
        of_row = torch.tensor([distinct[tuple(prompt)] for prompt in prompts], device=device)
        width = max(map(len, distinct))
        padded = torch.tensor(
            [[0] * (width - len(each)) + list(each) for each in distinct], device=device
        )
        lengths = torch.tensor([len(each) for each in distinct], device=device)
        places = torch.arange(width, device=device) - (width - lengths[:, None])
        self._lowest = torch.finfo(model.dtype).min
        mask = torch.zeros((len(distinct), 1, 1, width), dtype=model.dtype, device=device)
        mask.masked_fill_(places[:, None, None] < 0, self._lowest)
        causal = torch.ones((width, width), dtype=torch.bool, device=device).tril()
        self._cache = [_InPlace() for _ in range(model.config.num_hidden_layers)]
        logits = self._forward(
            padded,
            places.clamp(min=0),
            mask.expand(-1, -1, width, -1).masked_fill(~causal, self._lowest),
        )
        self.logits = logits[of_row]
        for layer in self._cache:
            layer.repeat(of_row)
        self._mask = mask[of_row]
        self._places = lengths[of_row]
        self._length = width

    def enter(self, tokens: torch.Tensor) -> None:
        """Append a token to each row, and compute the logits of the next."""
        if self._length == self._mask.shape[-1]:
            for layer in self._cache:
                layer.grow()
            self._mask = torch.nn.functional.pad(self._mask, (0, _BLOCK), value=self._lowest)
        self._mask[..., self._length] = 0
        self._length += 1
        self.logits = self._forward(tokens[:, None], self._places[:, None], self._mask)
        self._places += 1

    def keep(self, count: int, moves: list[tuple[int, int]]) -> None:
        """Keep the first rows, after moving some rows into the places of others."""
        for hole, last in moves:
            self._mask[hole] = self._mask[last]
            self._places[hole] = self._places[last]
        self._mask, self._places = self._mask[:count], self._places[:count]
        for layer in self._cache:
            layer.keep(count, moves)

    def _forward(
        self, tokens: torch.Tensor, places: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        output = self._model(
            input_ids=tokens,
            position_ids=places,
            attention_mask=mask,
            past_key_values=Cache(layers=list(self._cache)),
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits


class _InPlace(DynamicLayer):
    """Keys and values of a layer, (rows, heads, tokens, width), with room for more tokens."""

    def __init__(self) -> None:
        super().__init__()
        self._length = 0
        self._held: list[torch.Tensor] = []  # keys, values

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write those of new tokens; returns all, with the room, which a mask has to hide."""
        start, self._length = self._length, self._length + key_states.shape[2]
        if not self._held:
            self._held = [key_states, value_states]
        else:
            for held, states in zip(self._held, (key_states, value_states), strict=True):
                held[:, :, start : self._length] = states
        keys, values = self._held
        return keys, values

    def repeat(self, rows: torch.Tensor) -> None:
        """Copy rows, by number."""
        self._held = [held[rows] for held in self._held]

    def grow(self) -> None:
        """Make room for more tokens."""
        self._held = [torch.nn.functional.pad(held, (0, 0, 0, _BLOCK)) for held in self._held]

    def keep(self, count: int, moves: list[tuple[int, int]]) -> None:
        """See `_Batch.keep`."""
        for held in self._held:
            for hole, last in moves:
                held[hole, :, : self._length] = held[last, :, : self._length]
        self._held = [held[:count] for held in self._held]


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
