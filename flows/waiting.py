"""Lines on standard error while something takes long."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def told_while_waiting(first: float, every: float, text: Callable[[float], str]) -> Iterator[None]:
    """Write lines to standard error until the `with` block ends.

    Args:
        first: Time to the first line (seconds).
        every: Time between lines (seconds).
        text: The line, for the time that has passed (seconds).
    """
    ended = threading.Event()
    begun = time.monotonic()

    def tell() -> None:
        wait = first
        while not ended.wait(wait):
            sys.stderr.write(f"{text(time.monotonic() - begun)}\n")
            sys.stderr.flush()
            wait = every

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
