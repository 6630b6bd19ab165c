"""Running a flow from a command: on the configured Prefect server, or a temporary one."""

import gc
import os
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

import httpx

from cotpipe.errors import RunError
from flows.background import log_in
from flows.temporary_server import TemporaryServer

_SECONDS_TO_DRAIN = 20.0

Result = TypeVar("Result")


def on_a_server(call_flow: Callable[[], Result]) -> Result:
    """Call a flow with the configured Prefect server, or a temporary one; returns what it returns.

    Raises `RunError` if the server cannot be reached. `call_flow` imports the flow itself: importing
    Prefect takes seconds, and reads the server's address.
    """
    server = None
    try:
        if not os.environ.get("PREFECT_API_URL"):
            server = TemporaryServer()
        log_in()
        gc.disable()  # the import makes much that stays, and no garbage
        import prefect  # noqa: F401

        gc.enable()
        return call_flow()
    except KeyboardInterrupt:
        _end_at_once(server)
    except (httpx.TransportError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "Failed to reach API" not in str(error):
            raise  # only this message comes from Prefect, before a run starts
        if server:
            server.check()
        raise RunError(
            f"cannot reach the Prefect server ({error}); check PREFECT_API_URL, or unset it"
        ) from error


def _end_at_once(server: TemporaryServer | None) -> NoReturn:
    """Flush events to the server, and exit without waiting for threads that still generate."""
    from prefect.events.worker import EventsWorker

    sys.stderr.write(
        "cotpipe: interrupted; finished steps are kept, run the same command again to resume\n"
    )
    sys.stderr.flush()
    EventsWorker.drain_all(timeout=_SECONDS_TO_DRAIN)
    if server:
        server.end()
    os._exit(1)
