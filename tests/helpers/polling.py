"""Waiting for what others do."""

import threading
import time
from collections.abc import Callable, Iterator

PATIENCE = 900.0
"""Seconds after which a test gives up; whatever works ends long before, on a slow machine, too."""


def polls() -> Iterator[None]:
    """Look, wait a quarter of a second, look again, while there is patience."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        yield
        threading.Event().wait(0.25)


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so; fails when patience is at its end."""
    for _ in polls():
        if is_so():
            return
    raise AssertionError("it has not come about")
