"""Several servers of one model: each request goes to the least busy one that is not resting after failures."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from cotpipe.errors import UserError

logger = logging.getLogger(__name__)

_FAILURES_BEFORE_REST = 3
_LONGEST_REST = 30.0  # seconds
_WINDOW = 60.0  # seconds


class CanHealError(Exception):
    """A request that failed in a way that a repetition may heal."""

    def __init__(self, reason: str, is_gone: bool = False, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.is_gone = is_gone  # nobody was there to answer
        self.retry_after = retry_after  # seconds, as the server asks for


@dataclass
class Server:
    """One address, and how it has been doing."""

    url: str
    in_flight: int = 0
    failures: int = 0  # since it last answered
    rests_until: float = 0.0  # time.monotonic()


class Servers:
    """Picks a server for each request.

    A server rests when it is gone, when it asks for a pause (Retry-After), or when it has failed three times without
    an answer in between; ever longer, to 30 s, until it answers again.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self.all = [Server(url.rstrip("/")) for url in urls]

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Server]:
        """A server for one request, made in the `async with` block; waits while all are resting."""
        while not (awake := [server for server in self.all if server.rests_until <= time.monotonic()]):
            await asyncio.sleep(max(min(server.rests_until for server in self.all) - time.monotonic(), 0.01))
        server = min(awake, key=lambda one: one.in_flight)
        server.in_flight += 1
        try:
            yield server
            server.failures = 0
        except CanHealError as error:
            self._failed(server, error)
            raise
        finally:
            server.in_flight -= 1

    def _failed(self, server: Server, error: CanHealError) -> None:
        now = time.monotonic()
        if server.rests_until > now:
            return  # it failed with others in flight; one failure counts once
        server.failures += 1
        rest = error.retry_after or 0.0
        if error.is_gone or server.failures >= _FAILURES_BEFORE_REST:
            rest = max(rest, min(0.5 * 2**server.failures, _LONGEST_REST))
        if rest:
            logger.warning("%s rests for %.1f s: %s", server.url, rest, error)
            server.rests_until = now + rest


class RateWindow:
    """No more than `limit` units in any 60 seconds; None is no limit."""

    def __init__(self, limit: int | None, setting: str) -> None:
        self._limit, self._setting = limit, setting
        self._taken: deque[tuple[float, int]] = deque()
        self._total = 0
        self._turn = asyncio.Lock()  # first come, first served

    async def take(self, amount: int) -> None:
        """Wait until `amount` units are free. Raises `UserError` where they never are."""
        if self._limit is None:
            return
        if amount > self._limit:
            raise UserError(f"{self._setting}: one request may take {amount}, more than the limit of {self._limit}")
        async with self._turn:
            while self._total + amount > self._limit:
                taken_at, freed = self._taken[0]
                await asyncio.sleep(max(taken_at + _WINDOW - time.monotonic(), 0.0))
                self._taken.popleft()
                self._total -= freed
            self._taken.append((time.monotonic(), amount))
            self._total += amount
