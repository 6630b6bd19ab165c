"""The command as its users meet it, and the recipe whose whole curriculum takes a minute."""

import os
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main
from tests.helpers.polling import PATIENCE

TINY = str(Path(__file__).with_name("tiny.yaml"))

_PROGRESS = re.compile(r"━|^The Prefect server is starting|^(\d+ +)?\S+ +\d+:\d\d:\d\d  ")


def cotpipe(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Call the command in this process, which has all libraries loaded: for what runs no flow.

    What a command writes past Python (tables to /dev/stdout) is not in the output.
    """
    output, errors, before = StringIO(), StringIO(), dict(os.environ)
    status: Any = 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
        patch.setattr(sys, "argv", ["cotpipe", *arguments])
        os.environ.update(environment)
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
        finally:  # the command sets variables, too
            for name in os.environ.keys() - before:
                del os.environ[name]
            os.environ.update(before)
    return subprocess.CompletedProcess(arguments, status, output.getvalue(), errors.getvalue())


def cotpipe_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run the command to its end, in a process of its own."""
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
