"""Load balancing over servers of the same model: least busy first, with pauses after failures."""

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


class RetryableError(Exception):
    """A retryable request failure."""

    def __init__(
        self, reason: str, is_gone: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(reason)
        self.is_gone = is_gone  # the connection failed
        self.retry_after = retry_after  # seconds, as requested by the server


@dataclass
class Server:
    """A server's address and health."""

    url: str
    in_flight: int = 0
    failures: int = 0  # consecutive
    rests_until: float = 0.0  # time.monotonic()


class Servers:
    """Picks a server for each request.

    A server is paused when it is unreachable, sends Retry-After, or has failed three times in a
    row. Pauses grow up to 30 s until the server responds again.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self.all = [Server(url.rstrip("/")) for url in urls]

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Server]:
        """A server for one request, sent in the `async with` block; waits while all are paused."""
        while not (
            awake := [server for server in self.all if server.rests_until <= time.monotonic()]
        ):
            await asyncio.sleep(
                max(min(server.rests_until for server in self.all) - time.monotonic(), 0.01)
            )
        server = min(awake, key=lambda one: one.in_flight)
        server.in_flight += 1
        try:
            yield server
            server.failures = 0
        except RetryableError as error:
            self._failed(server, error)
            raise
        finally:
            server.in_flight -= 1

    def _failed(self, server: Server, error: RetryableError) -> None:
        now = time.monotonic()
        if server.rests_until > now:
            return  # concurrent requests failed together; count them once
        server.failures += 1
        rest = error.retry_after or 0.0
        if error.is_gone or server.failures >= _FAILURES_BEFORE_REST:
            rest = max(rest, min(0.5 * 2**server.failures, _LONGEST_REST))
        if rest:
            logger.warning("pausing %s for %.1f s: %s", server.url, rest, error)
            server.rests_until = now + rest


class RateWindow:
    """Rate limiter: at most `limit` units in any 60 seconds; None means no limit."""

    def __init__(self, limit: int | None, setting: str) -> None:
        self._limit, self._setting = limit, setting
        self._taken: deque[tuple[float, int]] = deque()
        self._total = 0
        self._turn = asyncio.Lock()  # first come, first served

    async def take(self, amount: int) -> None:
        """Wait until `amount` units are available. Raises `UserError` if they exceed the limit."""
        if self._limit is None:
            return
        if amount > self._limit:
            raise UserError(
                f"{self._setting}: a single request may take {amount}, more than the limit of "
                f"{self._limit}; raise the limit, or lower max_new_tokens"
            )
        async with self._turn:
            while self._total + amount > self._limit:
                taken_at, freed = self._taken[0]
                await asyncio.sleep(max(taken_at + _WINDOW - time.monotonic(), 0.0))
                self._taken.popleft()
                self._total -= freed
            self._taken.append((time.monotonic(), amount))
            self._total += amount
