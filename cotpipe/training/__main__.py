"""The training process, one of `COTPIPE_NUM_PROCESSES`: `python -m cotpipe.training JOB.json`.

Messages go to standard output as JSON lines, logs to standard error.
"""
# ruff: noqa: E402

import gc

gc.disable()  # the imports make a million objects that stay; looking through them takes seconds

import logging
import os
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

import psutil
import torch

from cotpipe.errors import UserError, first_line
from cotpipe.hardware.devices import fast_dtype, require_devices
from cotpipe.recipe.trainers import Grpo, Sft
from cotpipe.training.cpu import project_in_small_tiles, score_targets_only
from cotpipe.training.grpo import train_grpo
from cotpipe.training.job import Job
from cotpipe.training.messages import Failure, OutOfMemory, Refusal
from cotpipe.training.processes import local_world_size
from cotpipe.training.progress import write_line
from cotpipe.training.sft import train_sft


def main() -> int:
    """Run the job named on the command line; returns the exit status."""
    gc.freeze()  # nor are they looked through later, or at the end
    gc.enable()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    sys.excepthook = _tell
    job = Job.model_validate_json(Path(sys.argv[1]).read_bytes())
    threading.Thread(target=_end_with, args=(job.launcher, os.getppid()), daemon=True).start()
    score_targets_only()
    project_in_small_tiles()
    try:
        require_devices(local_world_size(), "COTPIPE_NUM_PROCESSES")
        if int(os.environ.get("RANK", 0)) == 0:
            logging.info("computing in %s", str(fast_dtype(job.precision)).removeprefix("torch."))
        match job.stage.trainer:
            case Sft() as trainer:
                train_sft(job, trainer)
            case Grpo() as trainer:
                train_grpo(job, trainer)
    except UserError as error:
        write_line(Refusal(user_error=str(error)))
        return 2
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        write_line(OutOfMemory(out_of_memory=first_line(error)))
        return 1
    return 0


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether GPU memory (own error class) or host memory (recognized by its message) ran out."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Report an exception; with several processes the first report is the cause of the others'."""
    write_line(Failure(failed=f"{kind.__name__}: {' '.join(str(error).split())[:500]}"))
    sys.__excepthook__(kind, error, trace)


def _end_with(launcher: int, parent: int) -> None:
    """Exit as soon as the launcher or the parent (perhaps PyTorch's launcher) is gone.

    Killed, they cannot stop their children.
    """
    while psutil.pid_exists(launcher) and os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
