"""Writing completions with a model in this process, many to a prompt.

What prompts have in common is computed once, a prompt once for all its completions; keys and values
are written in place; finished completions leave the batch, and waiting ones take their places.
"""

from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from cotpipe.hardware.drawing import draw
from cotpipe.hardware.families import has_plain_attention
from cotpipe.hardware.rows import Rows, Start

_REFILL = 4
"""Waiting completions enter when one in so many places is free: each time, the cache is copied."""


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
        is_over: Callable[[list[int]], bool] = lambda tokens: False,
        tell: Callable[[int], None] = lambda finished: None,
    ) -> list[list[list[int]]]:
        """Complete each prompt several times; draws from torch's generator.

        Args:
            prompts: Tokens of each prompt, at least one.
            samples: Completions per prompt.
            temperature: Sampling temperature; 0 takes the most likely token.
            top_p: Share of the probability from which tokens are drawn.
            max_new_tokens: Maximum length of a completion (tokens).
            is_over: Whether a completion without an end token, given its tokens, ends here.
            tell: Receives the number of finished completions.

        Returns:
            The tokens of each prompt's completions, the end token included.
        """
        asked = [prompt for prompt in prompts for _ in range(samples)]
        written: list[list[int]] = [[] for _ in asked]
        # Similar lengths together, for little padding.
        waiting = deque(sorted(range(len(asked)), key=lambda place: len(asked[place])))

        def goes_on(tokens: list[int]) -> bool:
            return len(tokens) < max_new_tokens and not is_over(tokens)

        was_training = self._model.training
        self._model.eval()
        with torch.inference_mode():
            if self._is_plain:
                self._write(asked, written, waiting, (temperature, top_p), goes_on, tell)
            else:
                self._generate(asked, written, waiting, (temperature, top_p), max_new_tokens, tell)
        self._model.train(was_training)
        return [written[start : start + samples] for start in range(0, len(asked), samples)]

    def _write(
        self,
        prompts: Sequence[list[int]],
        written: list[list[int]],
        waiting: deque[int],
        sampling: tuple[float, float],
        goes_on: Callable[[list[int]], bool],
        tell: Callable[[int], None],
    ) -> None:
        """Write all completions, by their numbers, token by token."""
        if not waiting:
            return
        start = Start(self._model, prompts)
        rows: Rows | None = None
        going: list[int] = []
        while waiting or going:
            free = self._batch_size - len(going)
            if waiting and free * _REFILL >= self._batch_size:
                entering = [waiting.popleft() for _ in range(min(free, len(waiting)))]
                entered = start.rows([prompts[number] for number in entering])
                rows = rows.joined(entered) if rows and going else entered
                going += entering
            assert rows is not None
            drawn = draw(rows.logits, *sampling)
            ended = []
            for place, token in enumerate(drawn.tolist()):
                tokens = written[going[place]]
                tokens.append(token)
                if token in self._ends or not goes_on(tokens):
                    ended.append(place)
            moves = _moves(len(going), ended)
            for hole, last in moves:
                going[hole] = going[last]
                drawn[hole] = drawn[last]
            del going[len(going) - len(ended) :]
            if going:
                rows.keep(len(going), moves)
                rows.enter(drawn[: len(going)])
            if ended:
                tell(len(prompts) - len(waiting) - len(going))

    def _generate(
        self,
        prompts: Sequence[list[int]],
        written: list[list[int]],
        waiting: deque[int],
        sampling: tuple[float, float],
        max_new_tokens: int,
        tell: Callable[[int], None],
    ) -> None:
        """By transformers' `generate`, which knows every kind of cache."""
        temperature, top_p = sampling
        drawing: dict[str, Any] = (
            {"do_sample": True, "temperature": temperature, "top_p": top_p}
            if temperature
            else {"do_sample": False}
        )
        while waiting:
            numbers = [waiting.popleft() for _ in range(min(self._batch_size, len(waiting)))]
            width = max(len(prompts[number]) for number in numbers)
            padding = [width - len(prompts[number]) for number in numbers]
            padded = [
                [0] * left + prompts[number] for left, number in zip(padding, numbers, strict=True)
            ]
            mask = [[0] * left + [1] * (width - left) for left in padding]
            output = self._model.generate(
                torch.tensor(padded, device=self._model.device),
                attention_mask=torch.tensor(mask, device=self._model.device),
                max_new_tokens=max_new_tokens,
                eos_token_id=sorted(self._ends) or None,
                pad_token_id=0,
                top_k=0,
                **drawing,
            )
            for number, tokens in zip(numbers, output[:, width:].tolist(), strict=True):
                written[number] += self._ended(tokens)
            tell(len(prompts) - len(waiting))

    def _ended(self, tokens: list[int]) -> list[int]:
        """The tokens up to the first end token, and this."""
        ends = (place for place, token in enumerate(tokens, start=1) if token in self._ends)
        return tokens[: next(ends, len(tokens))]


def _moves(count: int, ended: list[int]) -> list[tuple[int, int]]:
    """Which rows go into the places of ended ones, so that the first rows are those that go on."""
    remaining = count - len(ended)
    holes = [place for place in ended if place < remaining]
    lasts = [place for place in range(remaining, count) if place not in set(ended)]
    return list(zip(holes, lasts, strict=True))
