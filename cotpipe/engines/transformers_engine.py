"""The `transformers` engine: runs a checkpoint in this process, on a CPU or one GPU.

Completions are generated in batches; finished ones are replaced by waiting ones.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from cotpipe.engines.base import (
    Generated,
    Model,
    PromptTooLongError,
    Request,
    Sampling,
    as_generated,
    engines,
    refused,
    tokens_of,
)
from cotpipe.errors import UserError
from cotpipe.progress import Progress
from cotpipe.randomness import named_seed
from cotpipe.settings import Settings

_STRETCH = 96
"""Tokens to generate before finished completions are replaced by waiting ones."""


@dataclass
class _Answer:
    """A completion in progress."""

    request: int  # index of its request
    prompt: list[int]
    written: list[int] = field(default_factory=list)


class TransformersEngine:
    """Holds one model for its lifetime; generates at most `batch_size` completions at a time.

    Sampling is seeded per call, so samples are reproducible only for the same requests in the same
    order.
    """

    def __init__(self, model: Model, batch_size: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        from cotpipe.hardware.devices import fast_dtype, generation_attention

        disable_progress_bar()  # the step reports progress
        self._source = model
        self._turn = threading.Lock()  # shards take turns
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                model.name, revision=model.revision, padding_side="left"
            )
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                model.name,
                revision=model.revision,
                dtype=fast_dtype(),
                attn_implementation=generation_attention(),
            )
        except (OSError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise UserError(
                f"cannot open {model.name!r} as a causal language model: {first}"
            ) from error
        if model.adapter:
            from peft import PeftModel

            loaded = PeftModel.from_pretrained(loaded, model.adapter).merge_and_unload()
        self._model = loaded.to(self._device).eval()
        self._ends = end_tokens(loaded.generation_config, self._tokenizer)
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._batch_size = batch_size

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

        waiting: list[_Answer] = []
        samples: list[list[Generated]] = []
        for index, request in enumerate(requests):
            try:
                prompt = self._tokens(request, sampling)
            except PromptTooLongError as error:
                samples.append(refused(error, sampling))
                continue
            samples.append([])
            waiting += [_Answer(index, prompt) for _ in range(sampling.num_samples)]
        total = len(waiting)
        torch.manual_seed(
            named_seed(sampling.seed, *(request.problem_id for request in requests)) % 2**63
        )
        progress(0, total)
        while waiting:
            # Batch similar lengths to reduce padding; shortest first, so that long ones accumulate
            # into full batches.
            waiting.sort(key=lambda answer: len(answer.prompt) + len(answer.written))
            batch, waiting = waiting[: self._batch_size], waiting[self._batch_size :]
            self._write_on(batch, sampling)
            for answer in batch:
                if self._is_finished(answer, sampling):
                    samples[answer.request].append(self._read(answer, sampling))
                else:
                    waiting.append(answer)
            progress(total - len(waiting), total)
        return samples

    def _tokens(self, request: Request, sampling: Sampling) -> list[int]:
        context = self._model.config.max_position_embeddings
        return tokens_of(request, sampling, self._source, self._tokenizer, context)

    def _write_on(self, batch: list[_Answer], sampling: Sampling) -> None:
        """Generate up to `_STRETCH` more tokens for every completion in the batch."""
        import torch

        texts = {"input_ids": [answer.prompt + answer.written for answer in batch]}
        padded = self._tokenizer.pad(texts, return_tensors="pt").to(self._device)
        drawn: dict[str, Any] = {"do_sample": False, "top_p": None}
        if sampling.temperature:
            drawn = {
                "do_sample": True,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
            }
        room = sampling.max_new_tokens - min(len(answer.written) for answer in batch)
        with torch.inference_mode():
            output = self._model.generate(
                **padded,
                **drawn,
                max_new_tokens=min(_STRETCH, room),
                top_k=None,
                eos_token_id=sorted(self._ends) or None,
                pad_token_id=self._tokenizer.pad_token_id,
            )
        for answer, tokens in zip(
            batch, output[:, padded["input_ids"].shape[1] :].tolist(), strict=True
        ):
            grown = answer.written + tokens[: self._end(tokens)]
            answer.written = grown[: sampling.max_new_tokens]

    def _end(self, tokens: list[int]) -> int:
        """The number of tokens up to and including the first end token."""
        ends = (index for index, token in enumerate(tokens, start=1) if token in self._ends)
        return next(ends, len(tokens))

    def _has_ended(self, answer: _Answer) -> bool:
        return answer.written[-1] in self._ends

    def _is_finished(self, answer: _Answer, sampling: Sampling) -> bool:
        if self._has_ended(answer) or len(answer.written) == sampling.max_new_tokens:
            return True
        return bool(sampling.stop) and any(stop in self._text(answer) for stop in sampling.stop)

    def _text(self, answer: _Answer) -> str:
        text: str = self._tokenizer.decode(answer.written, skip_special_tokens=True)
        return text

    def _read(self, answer: _Answer, sampling: Sampling) -> Generated:
        text = self._text(answer)
        ends = [position for stop in sampling.stop if (position := text.find(stop)) >= 0]
        if ends:
            return as_generated(text[: min(ends)], len(answer.written), truncated=False)
        return as_generated(text, len(answer.written), truncated=not self._has_ended(answer))


def end_tokens(generation_config: Any, tokenizer: Any) -> set[int]:
    """All tokens that end an answer: the tokenizer's, and those of the generation config."""
    configured = generation_config.eos_token_id
    several = configured if isinstance(configured, list) else [configured]
    return {token for token in (tokenizer.eos_token_id, *several) if token is not None}


@engines.register("transformers")
@contextmanager
def open_transformers(model: Model, settings: Settings) -> Iterator[TransformersEngine]:
    """Open a model in this process with transformers."""
    yield TransformersEngine(model, settings.engine_batch)
