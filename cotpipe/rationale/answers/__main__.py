"""The process that checks answers: `python -m cotpipe.rationale.answers FUNCTION FD MEMORY`."""

import json
import resource
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

from cotpipe.extensions import load_own
from cotpipe.rationale.answers.process import CPU_SECONDS, SECONDS


def main() -> None:
    """Reply to calls until the other side is gone."""
    name, descriptor, memory = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for the process that calls
    if memory:
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (memory, most))
    made = load_own(name)()
    connection = Connection(descriptor)
    connection.send_bytes(b"ready")
    while True:
        try:
            method, *texts = json.loads(connection.recv_bytes())
        except EOFError:
            return
        # Without handlers, the system itself ends the process when a timer expires.
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        signal.setitimer(signal.ITIMER_REAL, 2 * SECONDS)  # where nobody is left to end it
        reply = _reply(made, method, texts)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        connection.send_bytes(json.dumps(reply).encode())


def _reply(made: Any, method: str, texts: list[str]) -> dict[str, Any]:
    try:
        result = getattr(made, method)(*texts)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # user code may raise anything
        return {"raised": [type(error).__name__, " ".join(str(error).split())[:300]]}
    plain = result if type(result) in (str, bool) else None
    return {"returned": plain, "type": type(result).__name__}


if __name__ == "__main__":
    main()
