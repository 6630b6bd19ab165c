"""Waiting for what others do."""

import threading
import time
from collections.abc import Iterator


def polls(seconds: float) -> Iterator[None]:
    """Look, wait a quarter of a second, look again, until the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        threading.Event().wait(0.25)
