"""Servers that answer what a test says, and a proxy before a real one that loses a share of the requests."""

import asyncio
import json
import random
import re
import socket
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections import Counter
from pathlib import Path
from typing import Self

import aiohttp
from aiohttp import web

from tests.helpers.polling import PATIENCE, polls

BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_open(port: int, process: subprocess.Popen) -> None:
    for _ in polls():
        assert process.poll() is None, "the server has ended"
        with socket.socket() as probe:
            probe.settimeout(0.1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
    raise AssertionError("the server did not start")


class _InAThread(ABC):
    """A web server in a thread of this process, for the time of a `with` block."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self._ready, self._over = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    @abstractmethod
    async def _app(self) -> web.Application: ...

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        runner = web.AppRunner(await self._app(), shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        self._ready.set()
        await self._over.wait()
        await runner.cleanup()


class FlakyProxy(_InAThread):
    """Passes requests on to a server, and loses a share of them in one of several ways.

    `cut` sends the first half of the true answer, `flip` another first byte; 429 asks for a pause of
    a second.
    """

    def __init__(
        self,
        upstream: str,
        share: float,
        seed: int,
        faults: tuple[str, ...] = ("500", "503", "reset", "stall"),
    ) -> None:
        self.upstream, self.share, self.faults = upstream, share, faults
        super().__init__()
        self.address = f"http://127.0.0.1:{self.port}"
        self.lost: list[str] = []
        self._random = random.Random(seed)

    async def _app(self) -> web.Application:
        self._client = aiohttp.ClientSession(auto_decompress=False)
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        return app

    def _fault(self, request: web.Request) -> str | None:
        return self._random.choice(self.faults) if self._random.random() < self.share else None

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        fault = self._fault(request)
        if fault:
            self.lost.append(fault)
        if fault and fault not in ("cut", "flip"):
            if fault == "stall":
                await asyncio.sleep(30)
            if fault in ("stall", "reset"):
                if request.transport:  # the client may have given up before
                    request.transport.abort()
                return web.Response()
            return web.Response(
                status=int(fault), headers={"Retry-After": "1"} if fault == "429" else {}
            )
        url = self.upstream + request.raw_path
        from yarl import URL

        async with self._client.request(
            request.method,
            URL(url, encoded=True),
            headers=request.headers,
            data=body,
            allow_redirects=False,
        ) as answer:
            content = await answer.read()
            if fault == "cut":
                return web.Response(status=answer.status, body=content[: len(content) // 2])
            if fault == "flip":
                content = bytes([content[0] ^ 1]) + content[1:]
            skipped = (
                {"Transfer-Encoding", "Content-Length", "Connection"}
                if request.method != "HEAD"
                else set()
            )
            headers = {
                name: value
                for name, value in answer.headers.items()
                if name not in skipped and not (fault and name.lower().startswith("x-amz-checksum"))
            }
            return web.Response(
                status=answer.status,
                body=content if request.method != "HEAD" else None,
                headers=headers,
            )


class BadDownloads(FlakyProxy):
    """Spoils the first downloads of files whose names end in `weights`, one way after the other."""

    def __init__(self, upstream: str, faults: tuple[str, ...]) -> None:
        super().__init__(upstream, share=0, seed=0, faults=faults)

    def _fault(self, request: web.Request) -> str | None:
        number = len(self.lost)
        spoilt = request.method == "GET" and request.path.endswith("weights")
        return self.faults[number] if spoilt and number < len(self.faults) else None


class Counting(FlakyProxy):
    """Passes everything on, and counts the requests by method."""

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream, share=0, seed=0)
        self.requests: Counter[str] = Counter()

    def _fault(self, request: web.Request) -> None:
        self.requests[request.method] += 1


class NoConditions(FlakyProxy):
    """Answers conditional writes with an error, and passes everything else on."""

    def __init__(self, upstream: str, status: int, code: str) -> None:
        super().__init__(upstream, share=0, seed=0)
        self.status, self.code = status, code

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        if "If-None-Match" not in request.headers:
            return await super()._pass_on(request)
        await request.read()
        text = f"<Error><Code>{self.code}</Code><Message>{self.code} it is</Message></Error>"
        return web.Response(status=self.status, content_type="application/xml", text=text)


class ScriptedModel(_InAThread):
    """A server with the protocol of OpenAI's that answers what a function says: (messages, body) -> text or status."""

    def __init__(
        self, answer, models=("scripted",), key=None, port=None, may_go_on=lambda: True
    ) -> None:
        self.answer, self.models, self.key = answer, models, key
        self.may_go_on = may_go_on  # a streamed answer waits for it after its first word
        super().__init__(port)
        self.address = f"http://127.0.0.1:{self.port}/v1"
        self.bodies: list[dict] = []
        self.times: list[float] = []

    async def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v1/models", self._list)
        app.router.add_post("/v1/chat/completions", self._complete)
        return app

    def _is_refused(self, request: web.Request) -> bool:
        return self.key is not None and request.headers.get("Authorization") != f"Bearer {self.key}"

    async def _list(self, request: web.Request) -> web.Response:
        if self._is_refused(request):
            return web.Response(status=401)
        return web.json_response({"data": [{"id": name} for name in self.models]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        if self._is_refused(request):
            return web.Response(status=401)
        body = await request.json()
        self.bodies.append(body)
        self.times.append(asyncio.get_running_loop().time())
        said = self.answer(body["messages"], body)
        if isinstance(said, web.Response):
            return said
        if body.get("stream"):
            return await self._stream(request, said)
        message = said if isinstance(said, dict) else {"content": said}
        tokens = len((message.get("content") or "").split())
        finish = message.pop("finish_reason", "stop")
        choice = {"message": message, "finish_reason": finish}
        return web.json_response({"choices": [choice], "usage": {"completion_tokens": tokens}})

    async def _stream(self, request: web.Request, said: dict | str) -> web.StreamResponse:
        message = said if isinstance(said, dict) else {"content": said}
        finish = message.get("finish_reason", "stop")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        words = re.findall(r"\s*\S+", message["content"])
        deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in words)]
        for number, delta in enumerate(deltas):
            while number > 1 and not self.may_go_on():
                await asyncio.sleep(0.01)
            event: dict = {"choices": [{"delta": delta, "finish_reason": None}]}
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
        if finish:
            event = {"choices": [{"delta": {}, "finish_reason": finish}]}
            await response.write(f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n".encode())
        return response


class OldPrefect(_InAThread):
    """A server that says it is Prefect in a version of its own."""

    def __init__(self, version: str) -> None:
        self.version = version
        super().__init__()
        self.address = f"http://127.0.0.1:{self.port}/api"

    async def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/api/admin/version", self._tell)
        return app

    async def _tell(self, request: web.Request) -> web.Response:
        return web.json_response(self.version)
