"""Leases: when several runs need the same artifact, one builds it and the others wait.

A lease is a file `lease-N.json` next to the artifact. Its holder counts up in it; a contender takes
over lease N, by creating lease N+1, once it has watched N's content stay unchanged for the lease's
time by its own monotonic clock. No two clocks are compared, and neither host names nor process ids
decide anything: a holder is known by a random name. One that was displaced (a machine that was
suspended) notices at its next heartbeat, or before it commits.

Correctness does not depend on leases (see `Store.commit`): at worst, a step runs twice.
"""

import fcntl
import logging
import os
import re
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cotpipe.errors import RunError, TransientError
from cotpipe.store.storage import Storage

logger = logging.getLogger(__name__)

_PREFIX = "lease-"
_NUMBERED = re.compile(rf"{_PREFIX}([0-9]{{1,9}})\.json")


class Lease(BaseModel):
    """The content of a lease; host and process are for people only."""

    model_config = ConfigDict(frozen=True)

    owner: str = Field(pattern=r"^[0-9a-f]{32}$")  # random, unique per holder
    beat: int = 0  # how often the holder has renewed it
    host: str
    pid: int

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class HeldLease:
    """A lease that this process holds and renews until `release`."""

    def __init__(
        self, storage: Storage, folder: str, number: int, lease: Lease, sign: IO[bytes]
    ) -> None:
        self.name = _name(folder, number)
        self._storage, self._folder, self._number, self._lease = storage, folder, number, lease
        self._sign = sign
        self._displaced, self._over = threading.Event(), threading.Event()
        self._beats: threading.Thread | None = None

    def renew_every(self, seconds: float) -> None:
        """Start the heartbeat."""
        self._beats = threading.Thread(target=self._renew, args=(seconds,), daemon=True)
        self._beats.start()

    def require(self) -> None:
        """Raise `TransientError` if a heartbeat noticed that another run took over."""
        if self._displaced.is_set():
            raise TransientError(
                f"{self._folder}: another run took over its lease; run again to wait for that run, "
                "and raise COTPIPE_LEASE_SECONDS if this machine often stalls"
            )

    def confirm(self) -> None:
        """Like `require`, after looking at the lease itself; called before a commit."""
        if not self._is_ours():
            self._displaced.set()
        self.require()

    def release(self) -> None:
        """End the heartbeat and give the lease back."""
        self._over.set()
        if self._beats:
            self._beats.join()
        _end_sign(self._sign)
        if self._wrote(self._storage.read(self.name)):
            self._storage.remove(self.name)

    def _is_ours(self) -> bool:
        number, data = _newest(self._storage, self._folder)
        return number == self._number and self._wrote(data)

    def _wrote(self, data: bytes | None) -> bool:
        lease = _parse(data)  # numbers start again, so the name alone says nothing
        return lease is not None and lease.owner == self._lease.owner

    def beat(self) -> None:
        """Renew the lease, unless another run has taken it over."""
        try:
            if self._is_ours():
                self._lease = self._lease.model_copy(update={"beat": self._lease.beat + 1})
                self._storage.replace(self.name, self._lease.model_dump_json().encode())
            else:
                self._displaced.set()
        except RunError as error:
            logger.warning("could not renew the lease of %s: %s", self._folder, error)

    def _renew(self, interval: float) -> None:
        while not self._over.wait(interval) and not self._displaced.is_set():
            self.beat()


class Contender:
    """One that wants a folder's lease, and remembers since when its holder has been silent."""

    def __init__(
        self,
        storage: Storage,
        folder: str,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Watch a lease.

        Args:
            storage: Where the lease is.
            folder: The folder that it is for.
            seconds: How long a holder must be silent before its lease is taken over; a holder
                renews three times as often.
            clock: This process's own seconds, from any start.
        """
        self._storage, self._folder, self._seconds = storage, folder, seconds
        self._clock = clock
        self._seen: tuple[int, bytes | None] = (0, None)
        self._since = clock()
        self._owners: set[str] = set()
        self.has_seen_life = False  # whether a holder renewed the lease while it was watched

    @contextmanager
    def try_lease(self) -> Iterator[HeldLease | None]:
        """Hold the lease during the `with` block; yields None while another run holds it."""
        held = self._take()
        try:
            yield held
        finally:
            if held:
                held.release()

    def _take(self) -> HeldLease | None:
        number, data = seen = _newest(self._storage, self._folder)
        if data is not None and not self._is_silent(seen):
            return None
        lease = Lease(owner=uuid.uuid4().hex, host=socket.gethostname(), pid=os.getpid())
        held = HeldLease(self._storage, self._folder, number + 1, lease, _give_sign(lease.owner))
        with ExitStack() as unless_held:
            unless_held.callback(held.release)
            if not self._storage.create(held.name, lease.model_dump_json().encode()):
                return None
            if set(_numbers(self._storage, self._folder)) - {*range(number + 1)} != {number + 1}:
                return None  # another contender saw other leases than this one
            for earlier in range(1, number + 1):
                self._storage.remove(_name(self._folder, earlier))
            if silent := _parse(data):
                with suppress(OSError):  # it may be another user's
                    _sign_of_life(silent.owner).unlink(missing_ok=True)
            held.renew_every(self._seconds / 3)
            unless_held.pop_all()
        return held

    def _is_silent(self, seen: tuple[int, bytes | None]) -> bool:
        lease = _parse(seen[1])
        if seen != self._seen:
            owner = lease.owner if lease else ""
            self.has_seen_life = owner in self._owners
            self._owners.add(owner)
            self._seen, self._since = seen, self._clock()
        if lease and _has_died_here(lease.owner):
            return True
        return self._clock() - self._since >= self._seconds


@contextmanager
def lease_unless_alive(storage: Storage, folder: str, seconds: float) -> Iterator[HeldLease | None]:
    """Hold a folder's lease, waiting for a silent holder to lose it; None if the holder is alive."""
    contender = Contender(storage, folder, seconds)
    while True:
        with contender.try_lease() as lease:
            if lease or contender.has_seen_life:
                yield lease
                return
        time.sleep(min(0.5, seconds / 10))


def holder(storage: Storage, folder: str) -> Lease | None:
    """Who holds a folder's lease, or held it when it died; None if nobody does."""
    return _parse(_newest(storage, folder)[1])


def is_lease(name: str) -> bool:
    """Whether a file in an artifact's folder is a lease."""
    return name.startswith(_PREFIX)


def _name(folder: str, number: int) -> str:
    return f"{folder}/{_PREFIX}{number}.json"


def _numbers(storage: Storage, folder: str) -> list[int]:
    found = (_NUMBERED.fullmatch(name) for name in storage.sizes(folder))
    return [int(match[1]) for match in found if match]


def _newest(storage: Storage, folder: str) -> tuple[int, bytes | None]:
    number = max(_numbers(storage, folder), default=0)
    return number, storage.read(_name(folder, number)) if number else None


def _parse(data: bytes | None) -> Lease | None:
    try:
        return Lease.model_validate_json(data) if data else None
    except ValidationError:  # of an older cotpipe, or torn: it is watched like any other
        return None


def _sign_of_life(owner: str) -> Path:
    """A file of this machine that the holder keeps locked; the system unlocks it at its death."""
    return Path(tempfile.gettempdir(), f"cotpipe-{owner}.lock")


def _give_sign(owner: str) -> IO[bytes]:
    sign = _sign_of_life(owner).open("xb")
    fcntl.flock(sign, fcntl.LOCK_EX)
    return sign


def _end_sign(sign: IO[bytes]) -> None:
    Path(sign.name).unlink(missing_ok=True)
    sign.close()


def _has_died_here(owner: str) -> bool:
    """Whether the holder was a process that sees the same files as this one, and is gone.

    Saves the wait after a crash. A file that is not there, or cannot be opened, proves nothing.
    """
    try:
        with _sign_of_life(owner).open("rb") as sign:
            fcntl.flock(sign, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
