"""Leases: when several runs need the same artifact, one builds it and the others wait.

A lease is a file `lease-N.json` next to the artifact. Its holder renews it; without renewal it
expires. A run takes over an expired lease N by creating lease N+1, which only one run can do.
Correctness does not depend on leases (see `Store.commit`): at worst, a step runs twice.
"""

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from pydantic import BaseModel, ConfigDict

from cotpipe.errors import RunError
from cotpipe.store.storage import Storage

logger = logging.getLogger(__name__)


class Lease(BaseModel):
    """Which process builds an artifact, and when its lease expires."""

    model_config = ConfigDict(frozen=True)

    owner: str  # unique per holder
    host: str
    pid: int
    expires_at: float  # Unix time in seconds

    def is_dead(self) -> bool:
        """Whether the lease has expired, or its holder was a process of this host that is gone."""
        if time.time() > self.expires_at:
            return True
        return self.host == socket.gethostname() and not psutil.pid_exists(self.pid)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@contextmanager
def try_lease(storage: Storage, folder: str, seconds: float) -> Iterator[Lease | None]:
    """Hold a folder's lease during the `with` block; yields None if another process holds it."""
    held = _take(storage, folder, seconds)
    if held is None:
        yield None
        return
    name, lease = held
    over = threading.Event()
    beat = threading.Thread(target=_renew, args=(storage, name, lease, seconds, over), daemon=True)
    beat.start()
    try:
        yield lease
    finally:
        over.set()
        beat.join()
        storage.remove(name)


def holder(storage: Storage, folder: str) -> Lease | None:
    """The current lease of a folder; None if nobody holds it."""
    lease = _newest(storage, folder)[1]
    return lease if lease and not lease.is_dead() else None


def _take(storage: Storage, folder: str, seconds: float) -> tuple[str, Lease] | None:
    number, newest = _newest(storage, folder)
    if newest and not newest.is_dead():
        return None
    lease = Lease(
        owner=uuid.uuid4().hex,
        host=socket.gethostname(),
        pid=os.getpid(),
        expires_at=time.time() + seconds,
    )
    name = f"{folder}/lease-{number + 1}.json"
    if not storage.create(name, lease.model_dump_json().encode()):
        return None
    for earlier in range(1, number + 1):
        storage.remove(f"{folder}/lease-{earlier}.json")
    return name, lease


def _newest(storage: Storage, folder: str) -> tuple[int, Lease | None]:
    names = [
        name
        for name in storage.sizes(folder)
        if name.startswith("lease-") and name.endswith(".json")
    ]
    number = max(
        (int(name.removeprefix("lease-").removesuffix(".json")) for name in names), default=0
    )
    data = storage.read(f"{folder}/lease-{number}.json") if number else None
    return number, Lease.model_validate_json(data) if data else None


def _renew(
    storage: Storage, name: str, lease: Lease, seconds: float, over: threading.Event
) -> None:
    while not over.wait(seconds / 3):
        try:
            renewed = lease.model_copy(update={"expires_at": time.time() + seconds})
            storage.replace(name, renewed.model_dump_json().encode())
        except (RunError, OSError) as error:
            logger.warning("could not renew lease %s: %s", name, error)


def wait_for_life(storage: Storage, folder: str) -> bool:
    """Wait until a folder's lease is renewed (True: holder alive) or ends (False: free to take)."""
    first = holder(storage, folder)
    while (now := holder(storage, folder)) and now == first:
        time.sleep(0.5)
    return now is not None and first is not None and now.owner == first.owner
