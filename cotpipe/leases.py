"""Leases: of the runs that need the same artifact at the same time one makes it, and the others wait.

A lease is a file `lease-N.json` beside the artifact, renewed by its holder and expired once that falls silent. Who
wants to take over an expired lease N creates lease N+1, which only one can. Nothing depends on leases being exact
(see `Store.commit`): at worst a step is done twice.
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
from cotpipe.storage import Storage

logger = logging.getLogger(__name__)


class Lease(BaseModel):
    """Who makes an artifact, and until when that counts."""

    model_config = ConfigDict(frozen=True)

    owner: str  # different for every holder
    host: str
    pid: int
    expires_at: float  # seconds since 1970

    def is_dead(self) -> bool:
        """Whether the holder has fallen silent, or ran on this machine and is gone."""
        if time.time() > self.expires_at:
            return True
        return self.host == socket.gethostname() and not psutil.pid_exists(self.pid)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@contextmanager
def try_lease(storage: Storage, folder: str, seconds: float) -> Iterator[Lease | None]:
    """Hold the lease of a folder for the time of the `with` block, or yield None: somebody else holds it."""
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
    """Who holds the lease of a folder now; None where nobody does."""
    lease = _newest(storage, folder)[1]
    return lease if lease and not lease.is_dead() else None


def _take(storage: Storage, folder: str, seconds: float) -> tuple[str, Lease] | None:
    number, newest = _newest(storage, folder)
    if newest and not newest.is_dead():
        return None
    lease = Lease(owner=uuid.uuid4().hex, host=socket.gethostname(), pid=os.getpid(), expires_at=time.time() + seconds)
    name = f"{folder}/lease-{number + 1}.json"
    if not storage.create(name, lease.model_dump_json().encode()):
        return None
    for earlier in range(1, number + 1):
        storage.remove(f"{folder}/lease-{earlier}.json")
    return name, lease


def _newest(storage: Storage, folder: str) -> tuple[int, Lease | None]:
    names = [name for name in storage.sizes(folder) if name.startswith("lease-") and name.endswith(".json")]
    number = max((int(name.removeprefix("lease-").removesuffix(".json")) for name in names), default=0)
    data = storage.read(f"{folder}/lease-{number}.json") if number else None
    return number, Lease.model_validate_json(data) if data else None


def _renew(storage: Storage, name: str, lease: Lease, seconds: float, over: threading.Event) -> None:
    while not over.wait(seconds / 3):
        try:
            renewed = lease.model_copy(update={"expires_at": time.time() + seconds})
            storage.replace(name, renewed.model_dump_json().encode())
        except (RunError, OSError) as error:
            logger.warning("the lease %s could not be renewed: %s", name, error)


def wait_for_life(storage: Storage, folder: str) -> bool:
    """Wait until the lease of a folder is renewed (True: its holder lives) or ends (False: it can be taken)."""
    first = holder(storage, folder)
    while (now := holder(storage, folder)) and now == first:
        time.sleep(0.5)
    return now is not None and first is not None and now.owner == first.owner
