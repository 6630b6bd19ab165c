"""What is made once for all processes of a test session, and ended with it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

_VARIABLE = "COTPIPE_TESTS_SHARED"
"""Names the folder to the session's other processes, which inherit the environment of the first."""


def open_shared_folder() -> None:
    """Make the folder that this session's processes share."""
    os.environ[_VARIABLE] = tempfile.mkdtemp(prefix="cotpipe-tests-")


def close_shared_folder() -> None:
    """End the servers that were started in the shared folder, and remove it."""
    folder = Path(os.environ.pop(_VARIABLE))
    for path in folder.glob("*/*.pid"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(path.read_text()), signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def shared_folder(name: str) -> Path:
    """Where lies what is made `once` under this name."""
    return Path(os.environ[_VARIABLE], name)


def once(name: str, make: Callable[[Path], Any]) -> Any:
    """What `make` returns (JSON), given a new folder; the first process that asks calls it, the others wait."""
    folder = shared_folder(name)
    made = folder.with_suffix(".json")
    with FileLock(folder.with_suffix(".lock")):
        if not made.exists():
            assert not folder.exists(), f"{name} could not be made: an earlier test says why"
            folder.mkdir()
            made.write_text(json.dumps(make(folder)))
        return json.loads(made.read_text())


def start_server(folder: Path, command: Sequence[str], **environment: str) -> subprocess.Popen:
    """Start what serves until the session is over, whichever process asked for it; its log lies in the folder."""
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | environment, start_new_session=True
        )
    (folder / "server.pid").write_text(str(process.pid))
    return process
