"""Packing rows behind what they have in common, so that training computes that once, and no padding.

All tokens of a micro-batch lie one behind the other in one sequence: of every prompt all but its
last token, then a branch per completion, which begins with the prompt's last token. A branch sees
its prompt and itself (a tree), so that each token is computed as in a row of its own. Rows of
different prompts branch where they begin to differ. Everything in a transformer but attention takes
tokens one by one; attention unpacks the rows, because a tree mask over the whole sequence would
cost the square of its length.
"""

from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from cotpipe.hardware.devices import generation_attention

PACKED = "packed"
"""The attention's name in transformers: `model.set_attn_implementation(PACKED)`."""

_UNSCORED = -100

_Branches = dict[int, list[tuple[int, int]]]
"""By row: each token behind the prompt, and its label."""


@dataclass(frozen=True)
class Rows:
    """Rows that attention computes, padded on the right; indexes are places in the sequence."""

    queries: torch.Tensor  # (rows, queries)
    is_real: torch.Tensor  # (rows, queries), False for padding
    keys: torch.Tensor  # (rows, keys)
    is_visible: torch.Tensor  # (rows, 1, queries, keys), True where a query sees a key


@dataclass(frozen=True)
class Packed:
    """A micro-batch as one sequence of n tokens."""

    input_ids: torch.Tensor  # (1, n)
    position_ids: torch.Tensor  # (1, n), as in a row of prompt and completion
    labels: torch.Tensor  # (1, n), the completion token to predict, or -100
    rows: tuple[Rows, ...]  # the prompts, and the completions behind them
    order: torch.Tensor  # (n,), where a token's result is among those of all queries
    places: torch.Tensor  # (rows, completion tokens), where a token is predicted
    is_scored: torch.Tensor  # same shape, False where there is none

    def unpack(self, values: torch.Tensor) -> torch.Tensor:
        """Values per token, (1, n), as (rows, completion tokens), 0 where nothing is scored."""
        return values[0][self.places].masked_fill(~self.is_scored, 0)


@dataclass(frozen=True)
class _Branch:
    """Where one completion lies: its prompt's tokens but the last, and its own."""

    row: int
    prompt_start: int
    prompt_length: int
    start: int
    length: int


def is_worth_packing(
    input_ids: torch.Tensor, attention_mask: torch.Tensor, num_completion: int
) -> bool:
    """Whether two rows have the same prompt, or the completion of one is masked altogether."""
    prompts = input_ids[:, : input_ids.shape[1] - num_completion]
    shares = len(prompts.unique(dim=0)) < len(prompts)
    return shares or bool((attention_mask[:, -num_completion:].sum(dim=1) == 0).any())


def pack(input_ids: torch.Tensor, attention_mask: torch.Tensor, num_completion: int) -> Packed:
    """Pack rows of a left-padded prompt and a right-padded completion.

    Completions that are masked altogether are left out. Without any other one, a single token
    remains, for which nothing is scored: several processes must all run backward.

    Args:
        input_ids: (rows, tokens).
        attention_mask: Same shape, 0 for padding.
        num_completion: Number of tokens at the end of a row that are the completion's.
    """
    groups: dict[tuple[int, ...], _Branches] = {}
    split = input_ids.shape[1] - num_completion
    for row, (tokens, mask) in enumerate(
        zip(input_ids.tolist(), attention_mask.bool().tolist(), strict=True)
    ):
        real = [token for token, is_real in zip(tokens, mask, strict=True) if is_real]
        cut = sum(mask[:split])
        if len(real) > cut:
            completion = [(token, token) for token in real[cut:]]
            groups.setdefault(tuple(real[:cut]), {})[row] = completion
    if not groups:
        nothing = [(_UNSCORED, _UNSCORED)]
        groups = {tuple(input_ids[0, split - 1 : split].tolist()): {0: nothing}}
    flat, branches = _flatten(groups)
    return _packed(flat, branches, (len(input_ids), num_completion), input_ids.device)


def pack_rows(
    input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor
) -> Packed:
    """Pack rows behind the beginning that all of them share.

    Args:
        input_ids: (rows, tokens); a row has at least two.
        attention_mask: Same shape, 0 for padding.
        labels: Same shape; the row's tokens, or -100 for those that are not to be learnt.
    """
    is_real = attention_mask.bool()
    rows, wanted = (
        [row[real].tolist() for row, real in zip(values, is_real, strict=True)]
        for values in (input_ids, labels)
    )
    same = takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False))
    shared = sum(1 for _ in same)
    for row, each in zip(rows, wanted, strict=True):
        first = next((place for place, label in enumerate(each) if label != _UNSCORED), len(each))
        shared = min(shared, first, len(row) - 1)
    shared = max(shared, 1)  # nothing predicts the first token
    groups: dict[tuple[int, ...], _Branches] = {}
    for number, (row, each) in enumerate(zip(rows, wanted, strict=True)):
        rest = list(zip(row[shared:], each[shared:], strict=True))
        groups.setdefault(tuple(row[:shared]), {})[number] = rest
    flat, branches = _flatten(groups)
    return _packed(flat, branches, (len(rows), input_ids.shape[1] - shared), input_ids.device)


def _flatten(
    groups: dict[tuple[int, ...], _Branches],
) -> tuple[list[tuple[int, int, int]], list[_Branch]]:
    """Token, position and label of each place; where each completion lies."""
    flat: list[tuple[int, int, int]] = []
    branches = []
    for prompt, completions in groups.items():
        prompt_start, before = len(flat), len(prompt) - 1
        flat += [(token, place, _UNSCORED) for place, token in enumerate(prompt[:-1])]
        for row, completion in completions.items():
            branches.append(_Branch(row, prompt_start, before, len(flat), len(completion)))
            entered = (prompt[-1], *(token for token, _ in completion[:-1]))
            flat += [
                (token, before + place, label)
                for place, (token, (_, label)) in enumerate(zip(entered, completion, strict=True))
            ]
    return flat, branches


def _packed(
    flat: list[tuple[int, int, int]],
    branches: list[_Branch],
    shape: tuple[int, int],
    device: torch.device,
) -> Packed:
    input_ids, position_ids, labels = torch.tensor(flat, device=device).T.unsqueeze(1).contiguous()
    table = torch.tensor(
        [(each.prompt_start, each.prompt_length, each.start, each.length) for each in branches],
        device=device,
    )
    prompt_start, prompt_length, start, length = table.T
    prompts = table[:, :2].unique(dim=0)
    prompts = prompts[prompts[:, 1] > 0]
    rows = [_rows(prompt_start, prompt_length, start, length)]
    if len(prompts):
        nothing = torch.zeros_like(prompts[:, 0])
        rows.insert(0, _rows(nothing, nothing, *prompts.T))
    order = torch.empty(len(flat), dtype=torch.long, device=device)
    order[torch.cat([each.queries[each.is_real] for each in rows])] = torch.cat(
        [each.is_real.flatten() for each in rows]
    ).nonzero()[:, 0]
    places = torch.zeros(shape, dtype=torch.long, device=device)
    is_scored = torch.zeros(shape, dtype=torch.bool, device=device)
    for each in branches:
        stretch = slice(each.start, each.start + each.length)
        places[each.row, : each.length] = torch.arange(stretch.start, stretch.stop, device=device)
        is_scored[each.row, : each.length] = labels[0, stretch] != _UNSCORED
    return Packed(input_ids, position_ids, labels, tuple(rows), order, places, is_scored)


def _rows(
    prompt_start: torch.Tensor,
    prompt_length: torch.Tensor,
    start: torch.Tensor,
    length: torch.Tensor,
) -> Rows:
    """Rows whose queries see a prompt, and themselves causally; all arguments are (rows,)."""
    own = torch.arange(int(length.max()), device=length.device)
    is_real = own < length[:, None]
    queries = torch.where(is_real, start[:, None] + own, 0)
    width = int(prompt_length.max())
    before = torch.arange(-width, 0, device=length.device) + prompt_length[:, None]
    sees_prompt = before >= 0
    keys = torch.cat([torch.where(sees_prompt, prompt_start[:, None] + before, 0), queries], dim=1)
    causal = own[:, None] >= own
    is_visible = torch.cat(
        [
            sees_prompt[:, None].expand(-1, len(own), -1),
            causal.expand(len(length), -1, -1),
        ],
        dim=2,
    )
    return Rows(queries, is_real, keys, is_visible[:, None])


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    packed: Packed | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention over packed rows; over ordinary ones if `packed` is None.

    Args:
        module: The attention layer.
        query: (1, query heads, n, width).
        key: (1, key heads, n, width).
        value: Same shape as `key`.
        attention_mask: For ordinary rows: (batch, 1, queries, keys), added to the scores.
        packed: The layout of the n tokens; a keyword argument of the model.
        options: Scaling and dropout.

    Returns:
        The output, (1, n, query heads, width), and None for the attention weights.
    """
    attend = ALL_ATTENTION_FUNCTIONS[generation_attention()]
    if packed is None:
        output, _ = attend(module, query, key, value, attention_mask, **options)
        return output, None
    outputs = []
    for rows in packed.rows:
        mask = torch.zeros(rows.is_visible.shape, dtype=query.dtype, device=query.device)
        mask.masked_fill_(~rows.is_visible, torch.finfo(query.dtype).min)
        output, _ = attend(
            module,
            _taken(query, rows.queries),
            _taken(key, rows.keys),
            _taken(value, rows.keys),
            mask,
            **options,
        )
        outputs.append(output.flatten(0, 1))
    return torch.cat(outputs).index_select(0, packed.order)[None], None


def _taken(states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The states of a sequence, (1, heads, n, width), as (rows, heads, places, width)."""
    heads, _, width = states[0].shape
    taken = states[0].index_select(1, places.flatten())
    return taken.view(heads, *places.shape, width).transpose(0, 1)


def inputs_of(packed: Packed) -> dict[str, Any]:
    """What a model that TRL gave a fused LM head (`add_fused_lm_head`) takes for a packed micro-batch.

    With `fused_lm_head=True` the fields of its output are (1, n). Only labelled places are projected
    onto the vocabulary.
    """
    return {
        "input_ids": packed.input_ids,
        "position_ids": packed.position_ids,
        # A mask of four dimensions passes unchanged; an empty one fails if `packed` gets lost.
        "attention_mask": packed.input_ids.new_zeros((1, 1, 1, 0)),
        "shift_labels": packed.labels,
        "packed": packed,
    }


ALL_ATTENTION_FUNCTIONS.register(PACKED, packed_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(PACKED, ALL_MASK_ATTENTION_FUNCTIONS[generation_attention()])
