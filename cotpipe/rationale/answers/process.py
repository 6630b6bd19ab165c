"""Calling code that may never return, in a process of its own that is ended when it takes too long.

Neither a thread nor a signal handler stops a computation within C code, such as a power of large
integers or a regular expression; the end of its process does.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from cotpipe.errors import RunError, UserError

CPU_SECONDS = 5
"""CPU time of a call: what counts is not how busy the machine is."""
SECONDS = 30
"""Time of a call that waits instead of computing."""
_START_SECONDS = 600  # imports, on a busy machine


class UncheckedError(Exception):
    """An answer could not be checked: the call took too long, raised, or ended its process."""

    def __init__(self, summary: str, detail: str) -> None:
        super().__init__(f"{summary}: {detail}" if detail else summary)
        self.summary = summary


class CheckingProcess:
    """Calls the methods of an object that another process makes; one call at a time, by any thread.

    The process starts with the first call, and again after a call that it did not survive. It ends
    with this one, at the latest when the call that it is busy with takes too long.
    """

    def __init__(self, name: str, label: str, memory: int | None = None) -> None:
        """Create it, without a process yet.

        Args:
            name: Function that makes the object: `path/to/file.py:function`, or
                `package.module:function`.
            label: What messages call it.
            memory: Maximum address space of the process, in bytes.
        """
        self._name, self._label, self._memory = name, label, memory
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def asks(self, method: str, *texts: str) -> bool:
        """The truth value that a method returns for some texts.

        Raises `UncheckedError` if it takes too long, raises, or ends the process; `UserError` if it
        returns another type; `RunError` if the process does not start.
        """
        return bool(self._call(method, texts, ("bool",)))

    def text(self, method: str, *texts: str) -> str | None:
        """The text that a method returns, or None; raises as `asks`."""
        found = self._call(method, texts, ("str", "NoneType"))
        return None if found is None else str(found)

    def _call(self, method: str, texts: tuple[str, ...], wanted: tuple[str, ...]) -> Any:
        with self._lock:
            reply = self._reply(method, texts)
        if "raised" in reply:
            kind, said = reply["raised"]
            raise UncheckedError(f"{self._label} raised {kind}", said)
        if reply["type"] not in wanted:
            raise UserError(
                f"{self._label}: {method} returned {reply['type']}, not {wanted[0]}; fix the function"
            )
        return reply["returned"]

    def _reply(self, method: str, texts: tuple[str, ...]) -> dict[str, Any]:
        connection, replied = self._connected(), False
        try:
            connection.send_bytes(json.dumps([method, *texts]).encode())
            if not connection.poll(SECONDS):
                raise UncheckedError(f"{self._label} took longer than {SECONDS} s", "")
            reply: dict[str, Any] = json.loads(connection.recv_bytes())
            replied = True
        except (EOFError, OSError):
            raise self._died() from None
        finally:
            if (
                not replied
            ):  # also after Ctrl-C: a late reply would be taken for that of another call
                self._end()
        return reply

    def _connected(self) -> Connection:
        if self._connection and self._process and self._process.poll() is None:
            return self._connection
        ours, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-P", "-m", __package__,
                    self._name, str(theirs.fileno()), str(self._memory or 0),
                ],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)},
                stdin=subprocess.DEVNULL,
                stdout=2,  # what it prints is not for those who read our output
                pass_fds=[theirs.fileno()],
            )  # fmt: skip
        self._connection = ours
        try:
            if ours.poll(_START_SECONDS):
                ours.recv_bytes()
                return ours
        except (EOFError, OSError):
            pass
        self._end()
        raise RunError(
            f"the process that calls {self._label} does not start; its words stand above"
        )

    def _died(self) -> UncheckedError:
        assert self._process
        status = self._process.wait()
        if status == -signal.SIGPROF:
            return UncheckedError(f"{self._label} took longer than {CPU_SECONDS} s of CPU time", "")
        return UncheckedError(f"{self._label} ended its process (exit status {status})", "")

    def _end(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None
