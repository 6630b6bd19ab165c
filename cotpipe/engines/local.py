"""The `transformers` engine: a checkpoint in this process, on a CPU or one GPU; finished answers leave the batch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from cotpipe.engines.base import Generated, Report, Request, Sampling
from cotpipe.errors import UserError
from cotpipe.hardware import fast_dtype, generation_attention

_STRETCH = 96
"""Tokens that a batch writes before its finished answers leave it and waiting ones join."""


@dataclass
class _Answer:
    """One answer in the making."""

    request: int  # index of its request
    prompt: list[int]
    written: list[int] = field(default_factory=list)


class TransformersEngine:
    """Holds one model for as long as it lives; at most `batch_size` answers are written at a time."""

    def __init__(self, checkpoint: Path, batch_size: int) -> None:
        disable_progress_bar()  # loading is short; the step reports what takes long
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint, padding_side="left")
        model: Any = AutoModelForCausalLM.from_pretrained(
            checkpoint, dtype=fast_dtype(), attn_implementation=generation_attention()
        )
        self._model = model.to(self._device).eval()
        self._batch_size = batch_size

    def generate(self, requests: Sequence[Request], sampling: Sampling, report: Report) -> list[list[Generated]]:
        """See `Engine.generate`. Raises `UserError` for a prompt that leaves no room for an answer."""
        prompts = [self._tokens(request, sampling) for request in requests]
        waiting = [_Answer(index, prompt) for index, prompt in enumerate(prompts) for _ in range(sampling.num_samples)]
        total = len(waiting)
        samples: list[list[Generated]] = [[] for _ in requests]
        torch.manual_seed(sampling.seed)
        report(0, total)
        while waiting:
            # Similar lengths need little padding; the shortest first, so that the long ones gather in full batches.
            waiting.sort(key=lambda answer: len(answer.prompt) + len(answer.written))
            batch, waiting = waiting[: self._batch_size], waiting[self._batch_size :]
            self._write_on(batch, sampling)
            for answer in batch:
                if self._is_finished(answer, sampling):
                    samples[answer.request].append(self._read(answer))
                else:
                    waiting.append(answer)
            report(total - len(waiting), total)
        return samples

    def _tokens(self, request: Request, sampling: Sampling) -> list[int]:
        text = self._tokenizer.apply_chat_template(request.prompt, tokenize=False, add_generation_prompt=True)
        tokens: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        context = self._model.config.max_position_embeddings
        if len(tokens) + sampling.max_new_tokens > context:
            raise UserError(
                f"problem {request.problem_id}: its question takes {len(tokens)} tokens, and with "
                f"{sampling.max_new_tokens} new ones that is more than the student's context of {context}; "
                "lower max_new_tokens, or take the problem out"
            )
        return tokens

    def _write_on(self, batch: list[_Answer], sampling: Sampling) -> None:
        """Let every answer of the batch grow by up to `_STRETCH` tokens."""
        texts = {"input_ids": [answer.prompt + answer.written for answer in batch]}
        padded = self._tokenizer.pad(texts, return_tensors="pt").to(self._device)
        drawn = (
            {"do_sample": True, "temperature": sampling.temperature} if sampling.temperature else {"do_sample": False}
        )
        room = sampling.max_new_tokens - min(len(answer.written) for answer in batch)
        with torch.inference_mode():
            output = self._model.generate(**padded, **drawn, max_new_tokens=min(_STRETCH, room), top_k=None, top_p=None)
        for answer, tokens in zip(batch, output[:, padded["input_ids"].shape[1] :].tolist(), strict=True):
            grown = answer.written + tokens[: self._end(tokens)]
            answer.written = grown[: sampling.max_new_tokens]

    def _end(self, tokens: list[int]) -> int:
        """How many of the tokens belong to the answer: up to its end token, which counts."""
        end = self._tokenizer.eos_token_id
        return tokens.index(end) + 1 if end in tokens else len(tokens)

    def _is_finished(self, answer: _Answer, sampling: Sampling) -> bool:
        return answer.written[-1] == self._tokenizer.eos_token_id or len(answer.written) == sampling.max_new_tokens

    def _read(self, answer: _Answer) -> Generated:
        text: str = self._tokenizer.decode(answer.written, skip_special_tokens=True)
        truncated = answer.written[-1] != self._tokenizer.eos_token_id
        return Generated(text, len(answer.written), truncated)
