"""A Prefect server for one command; it exits with the process that started it, even if killed."""

import atexit
import gc
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from cotpipe.errors import RunError
from flows.waiting import told_while_waiting

if TYPE_CHECKING:
    import uvicorn

_SECONDS_OF_SILENCE = 2.0
_SECONDS_BETWEEN_LINES = 15.0
_SECONDS_TO_END = 20.0
_ENVIRONMENT = {
    "PREFECT__SERVER_EPHEMERAL": "1",  # without services that only a permanent server needs
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_UI_ENABLED": "0",
    "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "",  # no page of any site
}


class TemporaryServer:
    """Starts the server and sets PREFECT_API_URL; create it before importing Prefect.

    The child's standard input is a pipe. When this process exits, even if killed, the system closes
    the other end and the child exits. Raises `RunError` if the server exits before it is ready.
    """

    def __init__(self) -> None:
        password = f"cotpipe:{secrets.token_urlsafe(24)}"  # the machine may have other users
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the process
        self._process = subprocess.Popen(
            # -P: do not import a directory `flows` from the current directory.
            [sys.executable, "-P", "-m", "flows.temporary_server"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
            env=os.environ | _ENVIRONMENT | {"PREFECT_SERVER_API_AUTH_STRING": password},
            start_new_session=True,  # Ctrl-C is for the run, which still reports its end
        )  # fmt: skip
        assert self._process.stdin
        assert self._process.stdout
        os.register_at_fork(after_in_child=self._process.stdin.close)
        atexit.register(self.end)  # after Prefect's threads, which flush first
        with announce_slow_start():
            line = self._process.stdout.readline().decode().split()  # empty if it dies
        if not line:
            self._process.wait()
            self.check()
        address, *own = line
        os.environ["PREFECT_API_URL"] = address
        if own:
            os.environ["PREFECT_API_AUTH_STRING"] = password

    def check(self) -> None:
        """Raise `RunError`, with the last error in its log, if the server has died."""
        if self._process.poll():
            self._log.seek(0)
            said = _last_error(self._log.read().decode(errors="replace"))
            raise RunError(
                f"the temporary Prefect server ended: {said}; check its directory (PREFECT_HOME, default "
                "~/.prefect), or start a permanent server with: cotpipe up"
            )

    def end(self) -> None:
        """Shut the server down gracefully."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def announce_slow_start() -> AbstractContextManager[None]:
    """Say on standard error what is waited for, if the `with` block takes more than a moment."""

    def text(seconds: float) -> str:
        if seconds < _SECONDS_BETWEEN_LINES:
            return (
                "The Prefect server is starting; the first start on a machine creates its database "
                "and takes longer"
            )
        return f"The Prefect server is starting, for {seconds:.0f} s so far"

    return told_while_waiting(_SECONDS_OF_SILENCE, _SECONDS_BETWEEN_LINES, text)


def _last_error(text: str) -> str:
    """The last line of the form `SomeError: ...`, else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b.*: ", line)]
    return (errors or lines or ["its log is empty"])[-1][:300]


def serve() -> None:
    """Run the server on a free port; writes its address to standard output once it is ready.

    If a Prefect profile names a server, writes that one's address. Only after an address of its own
    comes the word `own`.
    """
    gc.disable()  # the imports make a million objects that stay; looking through them takes long
    import uvicorn
    from prefect.settings import get_current_settings

    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # standard output is only for the address
    if configured := get_current_settings().api.url:  # a Prefect profile sets a server
        out.write(configured)
        return
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}/api own\n"

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            gc.freeze()
            gc.enable()
            out.write(address)
            out.close()

    server = Server(
        uvicorn.Config(
            "prefect.server.api.server:create_app", factory=True, lifespan="on", log_level="error"
        )
    )
    threading.Thread(target=_end_with_parent, args=(server,), daemon=True).start()
    server.run([listener])


def _end_with_parent(server: "uvicorn.Server") -> None:
    os.read(0, 1)  # returns when the pipe is closed
    server.should_exit = True
    threading.Event().wait(_SECONDS_TO_END)
    os._exit(1)


if __name__ == "__main__":
    serve()
