"""The command as its users meet it, and the recipe whose whole curriculum takes a minute."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.helpers.polling import PATIENCE

TINY = str(Path(__file__).with_name("tiny.yaml"))

_PROGRESS = re.compile(r"━|^The Prefect server is starting|^\S+ +\d+:\d\d:\d\d  ")


def cotpipe(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run the command to its end."""
    command = [sys.executable, "-m", "flows.cli", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | environment, timeout=PATIENCE
    )


def assert_one_line_error(done: subprocess.CompletedProcess, status: int, *parts: str) -> None:
    """What every mistake and every failure looks like."""
    assert done.returncode == status, done.stderr
    lines = done.stderr.strip().splitlines()
    # What was being done may stand above, nothing else.
    assert [line for line in lines if not _PROGRESS.search(line)] == lines[-1:], done.stderr
    assert lines[-1].startswith("cotpipe: ")
    for part in parts:
        assert part in done.stderr
