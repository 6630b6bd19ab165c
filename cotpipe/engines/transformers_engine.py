"""The `transformers` engine: runs a checkpoint in this process, on a CPU or one GPU."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from cotpipe.engines.base import (
    Generated,
    Model,
    PromptTooLongError,
    Request,
    Sampling,
    as_generated,
    end_tokens,
    engines,
    refused,
    tokens_of,
)
from cotpipe.errors import UserError, first_line
from cotpipe.progress import Progress
from cotpipe.randomness import named_seed
from cotpipe.settings import Precision, Settings

_STRETCH = 64
"""Tokens after which stop strings are looked for."""


class TransformersEngine:
    """Holds one model for its lifetime; generates at most `batch_size` completions at a time.

    Sampling is seeded per call, so samples are reproducible only for the same requests in the same
    order.
    """

    def __init__(self, model: Model, batch_size: int, precision: Precision = "auto") -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        from cotpipe.hardware.decoding import Decoder
        from cotpipe.hardware.devices import fast_dtype, generation_attention

        disable_progress_bar()  # the step reports progress
        self._source = model
        self._turn = threading.Lock()  # shards take turns
        device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                model.name, revision=model.revision
            )
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                model.name,
                revision=model.revision,
                dtype=fast_dtype(precision),
                attn_implementation=generation_attention(),
            )
        except (OSError, ValueError) as error:
            raise UserError(
                f"cannot open {model.name!r} as a causal language model: {first_line(error)}"
            ) from error
        if model.adapter:
            from peft import PeftModel

            loaded = PeftModel.from_pretrained(loaded, model.adapter).merge_and_unload()
        self._context = loaded.config.max_position_embeddings
        self._ends = end_tokens(loaded.generation_config, self._tokenizer)
        self._decoder = Decoder(loaded.to(device).eval(), self._ends, batch_size)

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, progress: Progress
    ) -> list[list[Generated]]:
        """See `Engine.generate`."""
        with self._turn:
            return self._generate(requests, sampling, progress)

    def _generate(
        self, requests: Sequence[Request], sampling: Sampling, progress: Progress
    ) -> list[list[Generated]]:
        import torch

        prompts: dict[int, list[int]] = {}  # by the request's index
        samples: list[list[Generated]] = []
        for index, request in enumerate(requests):
            try:
                prompts[index] = tokens_of(
                    request, sampling, self._source, self._tokenizer, self._context
                )
                samples.append([])
            except PromptTooLongError as error:
                samples.append(refused(error, sampling))
        total = len(prompts) * sampling.num_samples
        torch.manual_seed(
            named_seed(sampling.seed, *(request.problem_id for request in requests)) % 2**63
        )
        progress(0, total)
        written = self._decoder.complete(
            list(prompts.values()),
            sampling.num_samples,
            sampling.temperature,
            sampling.top_p,
            sampling.max_new_tokens,
            is_stopped=partial(self._has_stopped, sampling.stop),
            on_progress=lambda finished: progress(finished, total),
        )
        for index, completions in zip(prompts, written, strict=True):
            samples[index] += [self._read(tokens, sampling) for tokens in completions]
        return samples

    def _has_stopped(self, stop: tuple[str, ...], tokens: list[int]) -> bool:
        if not stop or len(tokens) % _STRETCH:
            return False
        text = self._text(tokens)
        return any(one in text for one in stop)

    def _text(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def _read(self, tokens: list[int], sampling: Sampling) -> Generated:
        text = self._text(tokens)
        ends = [position for stop in sampling.stop if (position := text.find(stop)) >= 0]
        if ends:
            return as_generated(text[: min(ends)], len(tokens), truncated=False)
        return as_generated(text, len(tokens), truncated=tokens[-1] not in self._ends)


@engines.register("transformers")
@contextmanager
def open_transformers(model: Model, settings: Settings) -> Iterator[TransformersEngine]:
    """Open a model in this process with transformers."""
    yield TransformersEngine(model, settings.engine_batch, settings.precision)
