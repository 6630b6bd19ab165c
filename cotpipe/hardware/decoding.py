"""Writing completions with a model in this process, many to a prompt.

What prompts have in common is computed once, a prompt once for all its completions that begin
together; keys and values are written in place; finished completions leave the batch, and waiting
ones take their places. Models without plain attention are left to transformers' `generate`.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from cotpipe.hardware.families import has_plain_attention
from cotpipe.hardware.rows import Rows, SharedPrefix
from cotpipe.hardware.sampling import draw

_REFILL = 4
"""Waiting completions enter when one in so many places is free: each time, the cache is copied."""


@dataclass(frozen=True)
class _Sampling:
    """How completions are drawn, and where they end but for end tokens."""

    temperature: float
    top_p: float
    max_new_tokens: int
    is_stopped: Callable[[list[int]], bool]
    sources: Sequence[Random] | None  # by number of the completion; None: torch's generator


class Decoder:
    """Writes completions; a model whose rows need a cache of their own does it by `generate`."""

    def __init__(self, model: PreTrainedModel, ends: Collection[int], batch_size: int = 64) -> None:
        """Completions end at any of the end tokens.

        Args:
            model: A causal language model, in the dtype to compute in.
            ends: The end tokens.
            batch_size: Number of completions that are written at a time.
        """
        self._model: Any = model
        self._ends = frozenset(ends)
        self._batch_size = batch_size
        self._is_plain = has_plain_attention(model.config)

    def complete(
        self,
        prompts: Sequence[list[int]],
        samples: int,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        is_stopped: Callable[[list[int]], bool] = lambda tokens: False,
        on_progress: Callable[[int], None] = lambda finished: None,
        seeds: Sequence[int] | None = None,
    ) -> list[list[list[int]]]:
        """Complete each prompt several times.

        Args:
            prompts: Tokens of each prompt, at least one.
            samples: Completions per prompt.
            temperature: Sampling temperature; 0 takes the most likely token.
            top_p: Share of the probability from which tokens are drawn.
            max_new_tokens: Maximum length of a completion (tokens).
            is_stopped: Whether a completion without an end token, given its tokens, ends here.
            on_progress: Receives the number of finished completions.
            seeds: A seed per completion, whose tokens then depend on the others only through
                rounding; None: torch's generator draws for all, as `generate` always does.

        Returns:
            The tokens of each prompt's completions, the end token included.
        """
        asked = [prompt for prompt in prompts for _ in range(samples)]
        # Similar lengths together, for little padding.
        waiting = deque(sorted(range(len(asked)), key=lambda number: len(asked[number])))
        sources = None if seeds is None else [Random(seed) for seed in seeds]
        sampling = _Sampling(temperature, top_p, max_new_tokens, is_stopped, sources)
        written: dict[int, list[int]] = {}
        was_training = self._model.training
        self._model.eval()
        with torch.inference_mode():
            write = self._in_place if self._is_plain else self._by_generate
            for ended in write(asked, waiting, sampling):
                written |= ended
                on_progress(len(written))
        self._model.train(was_training)
        numbers = range(len(asked))
        return [
            [written[number] for number in numbers[start : start + samples]]
            for start in range(0, len(asked), samples)
        ]

    def _in_place(
        self, prompts: Sequence[list[int]], waiting: deque[int], sampling: _Sampling
    ) -> Iterator[dict[int, list[int]]]:
        """Write completions token by token; yields those that end together, by their numbers."""
        if not waiting:
            return
        prefix = SharedPrefix(self._model, prompts)
        rows: Rows | None = None
        going: list[tuple[int, list[int]]] = []  # number and tokens, row by row
        while waiting or going:
            free = self._batch_size - len(going)
            if waiting and free * _REFILL >= self._batch_size:
                entering = [waiting.popleft() for _ in range(min(free, len(waiting)))]
                entered = prefix.rows([prompts[number] for number in entering])
                rows = rows.concat(entered) if rows else entered
                going += [(number, []) for number in entering]
            assert rows is not None
            sources = sampling.sources and [sampling.sources[number] for number, _ in going]
            drawn = draw(rows.logits, sampling.temperature, sampling.top_p, sources)
            for (_, tokens), token in zip(going, drawn.tolist(), strict=True):
                tokens.append(token)
            places = [
                place
                for place, (_, tokens) in enumerate(going)
                if self._ends_with(tokens, sampling)
            ]
            ended = dict(going[place] for place in places)
            moves = _moves(len(going), places)
            for hole, last in moves:
                going[hole] = going[last]
                drawn[hole] = drawn[last]
            del going[len(going) - len(ended) :]
            if going:
                rows.keep(len(going), moves)
                rows.enter(drawn[: len(going)])
            else:
                rows = None  # its memory is for those that enter
            if ended:
                yield ended

    def _by_generate(
        self, prompts: Sequence[list[int]], waiting: deque[int], sampling: _Sampling
    ) -> Iterator[dict[int, list[int]]]:
        """As `_in_place`, by transformers' `generate`, which knows every kind of cache."""
        own = self._model.generation_config
        # What the model's own sets, such as a penalty, would count where we say nothing.
        self._model.generation_config = GenerationConfig()
        try:
            while waiting:
                numbers = [waiting.popleft() for _ in range(min(self._batch_size, len(waiting)))]
                completions = self._generated([prompts[number] for number in numbers], sampling)
                yield dict(zip(numbers, completions, strict=True))
        finally:
            self._model.generation_config = own

    def _generated(self, prompts: Sequence[list[int]], sampling: _Sampling) -> list[list[int]]:
        device, width = self._model.device, max(map(len, prompts))
        drawing: dict[str, Any] = {"do_sample": False}
        if sampling.temperature:
            drawing = {"do_sample": True, "temperature": sampling.temperature, "top_k": 0}
            drawing["top_p"] = sampling.top_p

        def are_over(tokens: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
            rows = tokens[:, width:].tolist()
            return torch.tensor([sampling.is_stopped(row) for row in rows], device=device)

        output = self._model.generate(
            torch.tensor([[0] * (width - len(one)) + one for one in prompts], device=device),
            attention_mask=torch.tensor(
                [[0] * (width - len(one)) + [1] * len(one) for one in prompts], device=device
            ),
            max_new_tokens=sampling.max_new_tokens,
            eos_token_id=sorted(self._ends) or None,
            pad_token_id=0,
            stopping_criteria=[are_over],
            **drawing,
        )
        return [self._ended(row, sampling) for row in output[:, width:].tolist()]

    def _ended(self, tokens: list[int], sampling: _Sampling) -> list[int]:
        """The tokens up to where the completion ends."""
        starts = (tokens[:length] for length in range(1, len(tokens)))
        return next((one for one in starts if self._ends_with(one, sampling)), tokens)

    def _ends_with(self, tokens: list[int], sampling: _Sampling) -> bool:
        """Whether a completion ends with its last token."""
        return (
            tokens[-1] in self._ends
            or len(tokens) == sampling.max_new_tokens
            or sampling.is_stopped(tokens)
        )


def _moves(count: int, ended: list[int]) -> list[tuple[int, int]]:
    """Which rows go into the places of ended ones, so that the first rows are those that go on."""
    remaining = count - len(ended)
    holes = [place for place in ended if place < remaining]
    gone = set(ended)
    lasts = [place for place in range(remaining, count) if place not in gone]
    return list(zip(holes, lasts, strict=True))
