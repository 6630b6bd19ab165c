"""Rows of tokens that a model writes together, with their keys and values.

A row ends at the last column that is in use, so that all rows take their next token at the same
place; what is to the left of a row is hidden by the mask.
"""

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

import torch
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

_BLOCK = 32
"""Columns by which the cache grows: attention is slow on tensors that are not whole (a slice)."""
_MOST_TOKENS = 8192
"""Tokens of prompts that are computed at a time; a longer prompt is computed whole."""
_LEAST_COMMON = 8
"""A shorter common beginning is not worth a pass of its own."""


class SharedPrefix:
    """What prompts have in common, computed once; begins rows with the rest of each."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[list[int]]) -> None:
        """Computes the beginning that all prompts share; of equal ones, all but the last token.

        Args:
            model: A model with plain attention, see `has_plain_attention`.
            prompts: The tokens of the prompts, at least one of each.
        """
        self._model = model
        self._common = _shared(prompts)
        self._layers = [_InPlace() for _ in range(model.config.num_hidden_layers)]
        if self._common:
            tokens = torch.tensor([self._common], device=model.device)
            places = torch.arange(len(self._common), device=model.device)[None]
            _forward(
                model, self._layers, tokens, places, self._causal(len(self._common))[None, None]
            )

    def rows(self, prompts: Sequence[list[int]]) -> "Rows":
        """A row per prompt; those that follow one another and are equal are computed once."""
        found: Rows | None = None
        for piece in _pieces(prompts):
            begun = self._begin(piece)
            found = found.concat(begun) if found else begun
        assert found, "no prompts"
        return found

    def _begin(self, prompts: Sequence[list[int]]) -> "Rows":
        common, device, dtype = len(self._common), self._model.device, self._model.dtype
        rests = [tuple(prompt[common:]) for prompt in prompts]
        distinct = {rest: place for place, rest in enumerate(dict.fromkeys(rests))}
        width = max(map(len, distinct))
        padding = torch.tensor([width - len(rest) for rest in distinct], device=device)
        tokens = torch.tensor(
            [[0] * (width - len(rest)) + list(rest) for rest in distinct], device=device
        )
        columns = torch.arange(width, device=device)
        places = common + columns - padding[:, None]
        mask = torch.zeros((len(distinct), 1, width, common + width), dtype=dtype, device=device)
        mask[..., common:] = self._causal(width)
        is_padding = (columns < padding[:, None])[:, None, None]
        mask[..., common:].masked_fill_(is_padding, torch.finfo(dtype).min)
        layers = [layer.copied(len(distinct), width) for layer in self._layers]
        logits = _forward(self._model, layers, tokens, places.clamp(min=0), mask)
        of_row = torch.tensor([distinct[rest] for rest in rests], device=device)
        for layer in layers:
            layer.take(of_row)
        if common:  # it lies before the padding, and belongs behind it
            self._behind_padding(layers, padding[of_row, None], width)
        return Rows(self._model, layers, logits[of_row], (common + width - padding)[of_row])

    def _behind_padding(self, layers: "list[_InPlace]", padding: torch.Tensor, width: int) -> None:
        """Move the common beginning behind the padding of each row, (rows, 1)."""
        common = len(self._common)
        columns = torch.arange(common + width, device=padding.device).expand(len(padding), -1)
        order = torch.where(columns < padding + common, columns - padding, columns)
        order = torch.where(columns < padding, columns + common, order)
        for layer in layers:
            layer.reorder(order)

    def _causal(self, width: int) -> torch.Tensor:
        """A mask of so many tokens, of which each sees itself and those before, (width, width)."""
        shape, model = (width, width), self._model
        mask = torch.full(
            shape, torch.finfo(model.dtype).min, dtype=model.dtype, device=model.device
        )
        return mask.triu(1)


class Rows:
    """Rows that are being written, and the logits of the next token of each."""

    def __init__(
        self,
        model: PreTrainedModel,
        layers: "list[_InPlace]",
        logits: torch.Tensor,
        lengths: torch.Tensor,
    ) -> None:
        """Made by `SharedPrefix`.

        Args:
            model: The model.
            layers: Keys and values of each of its layers.
            logits: (rows, vocabulary).
            lengths: The number of tokens of each row, (rows,).
        """
        self._model = model
        self._layers = layers
        self.logits = logits
        self._lengths = lengths
        columns = torch.arange(layers[0].capacity, device=model.device)
        end = layers[0].length
        is_seen = (columns < end) & (columns >= end - lengths[:, None])
        self._lowest = torch.finfo(model.dtype).min
        self._mask = torch.zeros(is_seen.shape, dtype=model.dtype, device=model.device)
        self._mask = self._mask.masked_fill_(~is_seen, self._lowest)[:, None, None]

    def concat(self, others: "Rows") -> "Rows":
        """These rows and then others, in place of both; columns that no row uses are dropped."""
        lengths = torch.cat([self._lengths, others._lengths])
        length = int(lengths.max())
        layers = [
            mine.concat(theirs, length)
            for mine, theirs in zip(self._layers, others._layers, strict=True)
        ]
        logits = torch.cat([self.logits, others.logits])
        return Rows(self._model, layers, logits, lengths)

    def enter(self, tokens: torch.Tensor) -> None:
        """Append a token to each row, and compute the logits of the next."""
        end = self._layers[0].length
        if end == self._mask.shape[-1]:
            for layer in self._layers:
                layer.grow()
            self._mask = torch.nn.functional.pad(self._mask, (0, _BLOCK), value=self._lowest)
        self._mask[..., end] = 0
        self.logits = _forward(
            self._model, self._layers, tokens[:, None], self._lengths[:, None], self._mask
        )
        self._lengths += 1

    def keep(self, count: int, moves: list[tuple[int, int]]) -> None:
        """Keep the first rows, after moving some rows into the places of others."""
        for hole, last in moves:
            self._mask[hole] = self._mask[last]
            self._lengths[hole] = self._lengths[last]
        self._mask, self._lengths = self._mask[:count], self._lengths[:count]
        for layer in self._layers:
            layer.keep(count, moves)


class _InPlace(DynamicLayer):
    """Keys and values of a layer, (rows, heads, columns, width), with room for more columns."""

    def __init__(self) -> None:
        super().__init__()
        self.length = 0  # columns in use
        self._held: list[torch.Tensor] = []  # keys, values

    @property
    def capacity(self) -> int:
        """The number of columns, used or not."""
        return self._held[0].shape[2]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write those of new tokens; returns all, with the room, which a mask has to hide."""
        start, self.length = self.length, self.length + key_states.shape[2]
        if not self._held:
            self._held = [key_states, value_states]
        else:
            for held, states in zip(self._held, (key_states, value_states), strict=True):
                held[:, :, start : self.length] = states
        keys, values = self._held
        return keys, values

    def copied(self, count: int, room: int) -> "_InPlace":
        """A copy of the only row, if there is one, so many times, with room for so many columns."""
        found = _InPlace()
        found.length = self.length
        found._held = [
            torch.nn.functional.pad(held.expand(count, -1, -1, -1), (0, 0, 0, room))
            for held in self._held
        ]
        return found

    def take(self, rows: torch.Tensor) -> None:
        """Take rows by number."""
        self._held = [held[rows] for held in self._held]

    def reorder(self, columns: torch.Tensor) -> None:
        """Put the columns of each row into another order, (rows, columns)."""
        places = columns[:, None, :, None]
        self._held = [torch.take_along_dim(held, places, dim=2) for held in self._held]

    def concat(self, others: "_InPlace", length: int) -> "_InPlace":
        """These rows and then others, their last columns, with room for a few more; empties both."""
        found = _InPlace()
        found.length = length
        for mine, theirs in zip(self._held, others._held, strict=True):
            shape = (len(mine) + len(theirs), mine.shape[1], length + _BLOCK, mine.shape[3])
            held = mine.new_zeros(shape)
            for start, layer, part in ((0, self, mine), (len(mine), others, theirs)):
                used = min(length, layer.length)
                held[start : start + len(part), :, length - used : length] = part[
                    :, :, layer.length - used : layer.length
                ]
            found._held.append(held)
        self._held, others._held = [], []  # else all layers would be in memory twice
        return found

    def grow(self) -> None:
        """Make room for more columns."""
        self._held = [torch.nn.functional.pad(held, (0, 0, 0, _BLOCK)) for held in self._held]

    def keep(self, count: int, moves: list[tuple[int, int]]) -> None:
        """See `Rows.keep`."""
        for held in self._held:
            for hole, last in moves:
                held[hole, :, : self.length] = held[last, :, : self.length]
        self._held = [held[:count] for held in self._held]


def _shared(prompts: Sequence[list[int]]) -> list[int]:
    """The tokens with which all prompts begin, if there are some; a token of each prompt remains."""
    first, last = min(prompts), max(prompts)
    # Whatever the first and the last in order share, all share.
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(first[:-1], last[:-1], strict=False))
    common = [token for token, _ in shared]
    return common if len(common) >= _LEAST_COMMON else []


def _pieces(prompts: Sequence[list[int]]) -> Iterator[list[list[int]]]:
    """Prompts in order, in pieces that are computed at a time."""
    piece: list[list[int]] = []
    distinct: set[tuple[int, ...]] = set()
    longest = 0
    for prompt in prompts:
        number, most = len(distinct | {tuple(prompt)}), max(longest, len(prompt))
        if piece and number * most > _MOST_TOKENS:
            yield piece
            piece, distinct, most = [], set(), len(prompt)
        piece.append(prompt)
        distinct.add(tuple(prompt))
        longest = most
    yield piece


def _forward(
    model: PreTrainedModel,
    layers: "list[_InPlace]",
    tokens: torch.Tensor,
    places: torch.Tensor,
    mask: torch.Tensor,
) -> torch.Tensor:
    """The logits behind the last token of each row, (rows, vocabulary)."""
    output = model(
        input_ids=tokens,
        position_ids=places,
        attention_mask=mask,
        past_key_values=Cache(layers=list(layers)),
        use_cache=True,
        logits_to_keep=1,
    )
    logits: torch.Tensor = output.logits[:, -1]
    return logits
