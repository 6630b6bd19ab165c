"""One greedy answer, shown as it is written: by a model in this process, or on a server."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx

from cotpipe.engines.base import (
    Generated,
    Model,
    PromptTooLongError,
    Request,
    Sampling,
    as_generated,
    tokens_of,
)
from cotpipe.engines.openai_engine import message_of
from cotpipe.engines.served import Served, headers_of
from cotpipe.errors import RunError, UserError
from cotpipe.rationale.prompts import Message
from cotpipe.settings import Settings

Show = Callable[[str], None]
"""Receives the next piece of an answer."""


@dataclass(frozen=True)
class LoadedModel:
    """A model in this process."""

    name: str
    model: Any
    tokenizer: Any

    def answer(self, prompt: Sequence[Message], max_new_tokens: int, show: Show) -> Generated:
        """Generate the answer to a prompt. Raises `UserError` if the prompt is too long."""
        from transformers import TextIteratorStreamer

        tokens = self._tokens(prompt, max_new_tokens)
        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        over = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            written = pool.submit(self._generate, tokens, max_new_tokens, streamer, over)
            try:
                for piece in streamer:
                    show(piece)
            finally:
                over.set()  # on an interrupt, so that the thread ends, too
            answer = written.result()
        ends = self.model.generation_config.eos_token_id
        ended = answer[-1] in (ends if isinstance(ends, list) else [ends])
        text = self.tokenizer.decode(answer, skip_special_tokens=True)
        return as_generated(text, len(answer), truncated=not ended)

    def _tokens(self, prompt: Sequence[Message], max_new_tokens: int) -> list[int]:
        sampling = Sampling(1, 0.0, max_new_tokens, 0)
        context = self.model.config.max_position_embeddings
        try:
            return tokens_of(
                Request("", list(prompt)), sampling, Model(self.name), self.tokenizer, context
            )
        except PromptTooLongError as error:
            raise UserError(f"{error}; shorten the question, or lower max_new_tokens") from error

    def _generate(
        self, tokens: list[int], max_new_tokens: int, streamer: Any, over: threading.Event
    ) -> list[int]:
        import torch

        inputs = torch.tensor([tokens], device=self.model.device)
        try:
            with torch.inference_mode():
                output = self.model.generate(
                    input_ids=inputs,
                    attention_mask=torch.ones_like(inputs),
                    do_sample=False,
                    temperature=None,
                    top_p=None,
                    top_k=None,
                    max_new_tokens=max_new_tokens,
                    streamer=streamer,
                    stopping_criteria=[lambda *_, **__: over.is_set()],
                )
        finally:
            streamer.end()  # else who reads waits for ever after an error
        answer: list[int] = output[0, len(tokens) :].tolist()
        return answer


@dataclass(frozen=True)
class ServedModel:
    """A model on a server."""

    served: Served
    settings: Settings

    def answer(self, prompt: Sequence[Message], max_new_tokens: int, show: Show) -> Generated:
        """Stream the answer to a prompt; its number of tokens is not known, and 0.

        Raises `UserError` if the server is gone or refuses the request, `RunError` if it breaks off.
        """
        body = {
            "model": self.served.name,
            "messages": list(prompt),
            "temperature": 0.0,
            "max_tokens": max_new_tokens,
            "stream": True,
        }
        text, thoughts, reason = "", "", None
        for choice in self._choices(body):
            delta = choice.get("delta") or {}
            thought = delta.get("reasoning") or delta.get("reasoning_content") or ""
            piece = delta.get("content") or ""
            text, thoughts = text + piece, thoughts + thought
            reason = choice.get("finish_reason") or reason
            show(thought + piece)
        if reason is None:
            raise RunError(f"{self.served.address} broke off its answer; ask again")
        return as_generated(text, 0, truncated=reason == "length", thoughts=thoughts)

    def _choices(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The first choice of every event (server-sent events, `data: {...}`)."""
        address = self.served.address
        timeout = httpx.Timeout(self.settings.server_timeout, connect=10.0)
        try:
            with httpx.stream(
                "POST", f"{address}/chat/completions", json=body, timeout=timeout,
                headers=headers_of(self.settings),
            ) as response:  # fmt: skip
                if response.is_error:
                    response.read()
                    raise UserError(
                        f"{address} rejects the request ({response.status_code}): "
                        f"{message_of(response)}; check the question and the server's log"
                    )
                for line in response.iter_lines():
                    data = line.removeprefix("data:").strip()
                    if line.startswith("data:") and data != "[DONE]":
                        yield from json.loads(data)["choices"][:1]
        except httpx.ConnectError as error:
            raise UserError(f"{address}: no server responds: {error}; start one") from error
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{address} broke off its answer ({str(error) or type(error).__name__}); ask again"
            ) from error
