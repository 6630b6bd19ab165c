"""The `openai` engine: concurrent requests with retries to OpenAI-compatible servers."""

import asyncio
import logging
import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal
from pydantic import BaseModel, Field, ValidationError
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
)

from cotpipe.engines.base import (
    Generated,
    Model,
    PromptTooLongError,
    Request,
    Sampling,
    as_generated,
    engines,
    refused,
)
from cotpipe.engines.servers import RateWindow, RetryableError, Server, Servers
from cotpipe.errors import TransientError, UserError
from cotpipe.progress import Progress
from cotpipe.settings import Settings

logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every request at INFO

_RETRYABLE = {408, 409, 425, 429}
_CHARACTERS_PER_TOKEN = 3
"""A conservative estimate, used only for the tokens-per-minute limit."""
_ATTEMPTS_AT_START = 4
_TOO_LONG = re.compile(
    r"context[ _](length|size|window)|maximum (model|prompt) length|too many (input )?tokens"
    r"|(prompt|input|request|messages?)\b[^.]{0,60}too (long|large)"
    r"|`?inputs`? (must have less than|tokens \+ `?max_new_tokens`? must be <=)",
    re.IGNORECASE,
)
"""How servers say that a prompt is too long: OpenAI's, vLLM, SGLang, llama.cpp, TGI."""
_CONTEXT = re.compile(r"(?:context|model) length[^.\d]{0,20}(\d+)", re.IGNORECASE)


class _Message(BaseModel):
    content: str | None = None
    reasoning: str | None = None  # name in vLLM
    reasoning_content: str | None = None  # name in other servers


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    completion_tokens: int


class _Completion(BaseModel):
    """The parts of a server's response that are used."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage


class OpenAIEngine:
    """Sends every sample as a separate request, with its own seed, to `settings.servers`.

    Retryable failures (429, 5xx, timeouts, lost connections, truncated responses) are retried with
    jittered exponential backoff. `generate` is thread-safe; concurrency and rate limits apply to
    all threads together.
    """

    def __init__(self, model: Model, settings: Settings, portal: BlockingPortal) -> None:
        self._model, self._settings, self._portal = model, settings, portal
        self._servers = Servers(settings.servers)
        key = settings.server_key.get_secret_value() if settings.server_key else None
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=settings.server_concurrency
            ),
            timeout=httpx.Timeout(settings.server_timeout, connect=10.0),
            verify=ssl.create_default_context(),
        )
        self._slots = asyncio.Semaphore(settings.server_concurrency)
        self._requests = RateWindow(settings.requests_per_minute, "COTPIPE_REQUESTS_PER_MINUTE")
        self._tokens = RateWindow(settings.tokens_per_minute, "COTPIPE_TOKENS_PER_MINUTE")

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, progress: Progress
    ) -> list[list[Generated]]:
        """See `Engine.generate`. Raises `TransientError` if a request fails after all retries."""
        answers = self._portal.call(self._answer_all, requests, sampling, progress)
        size = sampling.num_samples
        return [answers[start : start + size] for start in range(0, len(answers), size)]

    async def check(self) -> None:
        """Raise `UserError` if no server responds, or one lacks the model or rejects the key."""
        found = await asyncio.gather(
            *(self._check(server) for server in self._servers.all), return_exceptions=True
        )
        for error in found:
            if error and not isinstance(error, RetryableError):
                raise error
        if all(found):
            raise UserError(
                f"no server responds: {'; '.join(map(str, found))}; start one "
                f"(vllm serve {self._model.name}), or set COTPIPE_SERVERS"
            )

    async def _check(self, server: Server) -> None:
        async for attempt in self._retrying(_ATTEMPTS_AT_START):
            with attempt:
                response = await self._send(server, "GET", "models", None)
                try:
                    served = [one["id"] for one in response.json()["data"]]
                except (ValueError, KeyError, TypeError) as error:
                    raise RetryableError(f"{server.url} sent an invalid list of models") from error
                if self._model.name not in served:
                    raise UserError(
                        f"{server.url} serves {', '.join(served) or 'no model'}, not "
                        f"{self._model.name}; set teacher.model to a model that it serves, or "
                        f"COTPIPE_SERVERS to a server of {self._model.name}"
                    )

    async def _answer_all(
        self, requests: Sequence[Request], sampling: Sampling, progress: Progress
    ) -> list[Generated]:
        total = len(requests) * sampling.num_samples
        done = 0
        progress(done, total)

        async def answer(request: Request, number: int) -> Generated:
            nonlocal done
            async with self._slots:
                generated = await self._answer(request, number, sampling)
            done += 1
            progress(done, total)
            return generated

        tasks = [
            asyncio.create_task(answer(request, number))
            for request in requests
            for number in range(sampling.num_samples)
        ]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _answer(self, request: Request, number: int, sampling: Sampling) -> Generated:
        body = self._body(request, number, sampling)
        size = sum(len(message["content"]) for message in request.prompt) // _CHARACTERS_PER_TOKEN
        try:
            async for attempt in self._retrying(self._settings.server_attempts):
                with attempt:
                    await self._requests.take(1)
                    await self._tokens.take(size + sampling.max_new_tokens)
                    async with self._servers.turn() as server:
                        response = await self._send(
                            server, "POST", "chat/completions", body, request
                        )
                        return _read(response, server)
        except PromptTooLongError as error:
            return refused(error, sampling)[0]
        except RetryableError as error:
            raise TransientError(
                f"problem {request.problem_id}: no response after {self._settings.server_attempts} "
                f"attempts: {error}; check the server and run again: finished shards are kept"
            ) from error
        raise AssertionError("the last attempt returns or raises")

    def _body(self, request: Request, number: int, sampling: Sampling) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model.name,
            "messages": request.prompt,
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_new_tokens,
        }
        if sampling.temperature:
            body |= {"top_p": sampling.top_p, "seed": sampling.seed_of(request.problem_id, number)}
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if self._model.chat_template:
            body["chat_template"] = self._model.chat_template
        if self._model.template_options:
            body["chat_template_kwargs"] = dict(self._model.template_options)
        return body

    async def _send(
        self,
        server: Server,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        request: Request | None = None,
    ) -> httpx.Response:
        """Send a request; returns a successful response, or raises."""
        url = f"{server.url}/{path}"
        try:
            async with asyncio.timeout(self._settings.server_timeout):
                response = await self._client.request(method, url, json=body)
        except TimeoutError as error:
            raise RetryableError(
                f"{server.url} did not respond within {self._settings.server_timeout:g} s"
            ) from error
        except httpx.TransportError as error:
            gone = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            raise RetryableError(
                f"{server.url}: {str(error) or type(error).__name__}", is_gone=gone
            ) from error
        if response.status_code in _RETRYABLE or response.status_code >= 500:
            reason = f"{server.url} returned status {response.status_code}"
            raise RetryableError(reason, retry_after=_seconds(response.headers.get("Retry-After")))
        if response.status_code in (401, 403):
            raise UserError(
                f"{server.url} rejects the key ({response.status_code}); set COTPIPE_SERVER_KEY to "
                "a valid one"
            )
        if request and response.status_code in (400, 413, 422) and _is_too_long(response, body):
            raise PromptTooLongError(
                f"{server.url} rejects the prompt ({response.status_code}): {message_of(response)}"
            )
        if response.is_error:
            whose = f"problem {request.problem_id}: " if request else ""
            raise UserError(
                f"{whose}{server.url} rejects the request ({response.status_code}): "
                f"{message_of(response)}; check the teacher's settings and the server's log"
            )
        return response

    def _retrying(self, attempts: int) -> AsyncRetrying:
        return AsyncRetrying(
            retry=retry_if_exception_type(RetryableError),
            wait=wait_exponential_jitter(initial=0.25, max=30),
            stop=stop_after_attempt(attempts),
            reraise=True,
        )


@engines.register("openai")
@contextmanager
def open_servers(model: Model, settings: Settings) -> Iterator[OpenAIEngine]:
    """Open the engine after checking that at least one server serves the model.

    Raises `UserError` if no server is reachable, or one lacks the model or rejects the key.
    """
    if not settings.servers:
        raise UserError(
            "the openai engine needs a server: set COTPIPE_SERVERS, for example to "
            "http://127.0.0.1:8000/v1"
        )
    with start_blocking_portal() as portal:
        engine = OpenAIEngine(model, settings, portal)
        try:
            portal.call(engine.check)
            yield engine
        finally:
            portal.call(engine._client.aclose)


def _read(response: httpx.Response, server: Server) -> Generated:
    try:
        completion = _Completion.model_validate_json(response.content)
    except ValidationError as error:
        raise RetryableError(f"{server.url} sent an invalid or incomplete completion") from error
    choice = completion.choices[0]
    return as_generated(
        choice.message.content or "",
        completion.usage.completion_tokens,
        truncated=choice.finish_reason == "length",
        thoughts=choice.message.reasoning or choice.message.reasoning_content or "",
    )


def _seconds(retry_after: str | None) -> float | None:
    """Parse a Retry-After header in seconds; dates are ignored, as no model server sends them."""
    try:
        return min(max(float(retry_after), 0.0), 600.0) if retry_after else None
    except ValueError:
        return None


def _is_too_long(response: httpx.Response, body: Mapping[str, Any] | None) -> bool:
    """Whether a server refuses this prompt, rather than a setting that all requests have."""
    said = message_of(response)  # without the JSON around it, which has words of its own
    context = _CONTEXT.search(said)
    if context and body and body["max_tokens"] >= int(context[1]):
        return False  # no prompt leaves room for such an answer
    return response.status_code == 413 or bool(_TOO_LONG.search(said))


def message_of(response: httpx.Response) -> str:
    """The error message of a response, on one line."""
    try:
        said = response.json()
        text = said["error"]["message"] if "error" in said else said["message"]
    except (ValueError, KeyError, TypeError):
        text = response.text
    return " ".join(str(text).split())[:300]
