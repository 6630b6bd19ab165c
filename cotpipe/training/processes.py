"""Several training processes: the rows of each, the command that starts them, and how they ended."""

import math
import os
import re
import signal
import sys
from pathlib import Path

from cotpipe.errors import UserError
from cotpipe.recipe.stages import Stage
from cotpipe.recipe.trainers import Grpo

_EXIT = re.compile(r"^\s*exitcode\s*:\s*(-?\d+)", re.MULTILINE)
_SIGNALLED = re.compile(r"SignalException: Process \d+ got signal: (\d+)")


def accumulation_steps(rows_per_step: int, micro_batch: int, processes: int) -> int:
    """How many micro-batches each process takes per optimizer step.

    Args:
        rows_per_step: Rows of an optimizer step, over all processes: the recipe's, whatever their
            number.
        micro_batch: Rows per forward pass of a process.
        processes: Number of processes.

    Raises `UserError` if the rows cannot be divided evenly.
    """
    if rows_per_step % (micro_batch * processes) == 0:
        return rows_per_step // (micro_batch * processes)
    way_out = (
        f"lower the trainer's micro_batch to {math.gcd(rows_per_step // processes, micro_batch)}"
        if rows_per_step % processes == 0
        else f"set COTPIPE_NUM_PROCESSES to a divisor of {rows_per_step}"
    )
    raise UserError(
        f"an optimizer step takes {rows_per_step} rows, which {processes} processes "
        f"(COTPIPE_NUM_PROCESSES) with {micro_batch} rows each (micro_batch), together "
        f"{processes * micro_batch}, do not divide; {way_out}"
    )


def require_even_shares(stage: Stage, processes: int) -> None:
    """Raise `UserError` if processes cannot share the rows of a stage's optimizer steps evenly.

    With GRPO, all completions of a prompt belong to one process.
    """
    trainer = stage.trainer
    accumulation_steps(trainer.rows_per_step, trainer.micro_batch, processes)
    if isinstance(trainer, Grpo) and trainer.prompts_per_step % processes:
        raise UserError(
            f"{stage.name}.trainer.prompts_per_step ({trainer.prompts_per_step}) is not a multiple of "
            f"the number of processes ({processes}, COTPIPE_NUM_PROCESSES), which would divide the "
            f"completions of a prompt; set COTPIPE_NUM_PROCESSES to a divisor of "
            f"{trainer.prompts_per_step}"
        )


def world_size() -> int:
    """The number of processes that train together, seen from one of them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_world_size() -> int:
    """The number of those of them that are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def command(job_file: Path, processes: int) -> list[str]:
    """The command that trains a job; PyTorch's launcher starts several processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    several = launcher if processes > 1 else []
    return [sys.executable, *several, "-m", "cotpipe.training", str(job_file)]


def threads_each(processes: int) -> str:
    """OMP_NUM_THREADS of each process: the environment's, else an even share of the cores."""
    return os.environ.get("OMP_NUM_THREADS") or str(max((os.cpu_count() or 1) // processes, 1))


def exit_statuses(status: int, log: str) -> set[int]:
    """The exit statuses of the processes that failed by themselves; negative for a signal.

    PyTorch's launcher ends with status 1 for any failure, and lists in its last words the processes
    that failed, and those that it then stopped itself, with SIGTERM.

    Args:
        status: Exit status of the command, not 0.
        log: Standard error of all processes.
    """
    if listed := {int(each) for each in _EXIT.findall(log)}:
        return listed - {-signal.SIGTERM} or listed
    return {-int(number) for number in _SIGNALLED.findall(log)} or {status}
