"""A recipe so small that the whole curriculum takes a minute, and the command as its users meet it."""

import os
import subprocess
import sys

TINY = [
    "name=tiny", "problems.source.num_problems=120", "stage1.max_problems=16", "stage1.batch_size=8",
    "stage2.max_problems=8", "stage2.group_size=2", "stage2.max_new_tokens=8", "stage2.micro_batch=4",
    "mining.max_problems=6", "mining.max_new_tokens=8",
    "stage3.max_problems=4", "stage3.group_size=2", "stage3.max_new_tokens=8", "stage3.micro_batch=4",
    "evaluation.max_problems=6", "evaluation.max_new_tokens=12", "stage1.max_length=1000",
]  # fmt: skip


def cotpipe(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run the command to its end."""
    command = [sys.executable, "-m", "flows.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=240)


def assert_one_line_error(done: subprocess.CompletedProcess, status: int, *parts: str) -> None:
    """What every mistake and every failure looks like."""
    assert done.returncode == status, done.stderr
    lines = done.stderr.strip().splitlines()
    # What a step showed of its progress may stand above, nothing else.
    assert [line for line in lines if "━" not in line] == lines[-1:], done.stderr
    assert lines[-1].startswith("cotpipe: ")
    for part in parts:
        assert part in done.stderr
