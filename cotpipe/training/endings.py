"""Mapping the exit of a training process to an error."""

import signal
from pathlib import Path

from cotpipe.errors import RunError, TransientError, UserError
from cotpipe.training.messages import Failure, OutOfMemory, Refusal
from cotpipe.training.processes import exit_statuses

Ending = Refusal | OutOfMemory | Failure
"""What a training process says of its end."""


class KilledError(TransientError):
    """A training process got SIGKILL, as the kernel sends it where memory runs out."""


def raise_for(stage: str, status: int, said: Ending | None, log_file: Path) -> None:
    """Raise the error that a training process ended with; returns if it succeeded.

    Args:
        stage: Name of the stage.
        status: Exit status of the command.
        said: The first that a process said of its end; what others say follows from it.
        log_file: Captured standard error of the processes.

    Raises `UserError` for a user error reported by a process, `MemoryError` if one ran out of
    memory, `KilledError` or another `TransientError` if one was killed, `RunError` for any other
    failure.
    """
    if isinstance(said, Refusal):
        raise UserError(said.user_error)
    if isinstance(said, OutOfMemory):
        raise MemoryError(said.out_of_memory)
    log = log_file.read_text(encoding="utf-8", errors="replace")[-20_000:]
    statuses = exit_statuses(status, log) if status else set()
    if -signal.SIGKILL in statuses:
        raise KilledError(
            f"training of {stage} was killed (SIGKILL), as the operating system does where memory "
            "runs out"
        )
    if -signal.SIGTERM in statuses:
        raise TransientError(f"training of {stage} was told to end (SIGTERM)")
    if statuses:
        reason = said.failed if said else _last_line(log)
        raise RunError(
            f"training of {stage} ended with status {', '.join(map(str, sorted(statuses)))}: {reason}"
        )


def _last_line(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return (lines or ["no output"])[-1][:500]
