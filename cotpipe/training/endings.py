"""Mapping the exit of a training process to an error."""

import re
import signal
from pathlib import Path

from cotpipe.errors import RunError, TransientError, UserError
from cotpipe.training.messages import OutOfMemory, Refusal


def raise_for(stage: str, status: int, last: Refusal | OutOfMemory | None, log_file: Path) -> None:
    """Raise the error that a training process ended with; returns if it succeeded.

    Args:
        stage: Name of the stage.
        status: Exit status of the launcher.
        last: The error message that the process sent, if any.
        log_file: Captured standard error of the process.

    Raises `UserError` for a user error reported by the process, `MemoryError` if it ran out of
    memory, `TransientError` if it was killed, `RunError` for any other failure.
    """
    if isinstance(last, Refusal):
        raise UserError(last.user_error)
    if isinstance(last, OutOfMemory):
        raise MemoryError(last.out_of_memory)
    if status and _was_killed(status, log_file):
        raise TransientError(
            f"training of {stage} was killed (status {status}), possibly by the operating system "
            "because memory ran out"
        )
    if status:
        raise RunError(f"training of {stage} ended with status {status}: {_last_line(log_file)}")


def _was_killed(status: int, log_file: Path) -> bool:
    """Whether the launcher was killed, or logged at its end that the training process was."""
    last_words = log_file.read_text(encoding="utf-8", errors="replace")[-2000:]
    by_signal = status in (-signal.SIGKILL, -signal.SIGTERM)
    return by_signal or bool(re.search(r"SIG(KILL|TERM)", last_words))


def _last_line(log_file: Path) -> str:
    """The most informative log line: the last of the form `SomeError: ...`, else the last."""
    text = log_file.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [
        line
        for line in lines
        if "Error" in line.split(":", 1)[0] and "CalledProcessError" not in line
    ]
    return (errors or lines or ["no output"])[-1][:500]
