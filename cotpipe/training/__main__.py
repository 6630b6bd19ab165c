"""The training process: `accelerate launch -m cotpipe.training JOB.json`.

Messages go to standard output as JSON lines, logs to standard error.
"""

import logging
import os
import sys
import threading
import time
from pathlib import Path

import psutil
import torch

from cotpipe.errors import UserError
from cotpipe.recipe.trainers import Grpo, Sft
from cotpipe.training.cpu import score_targets_only
from cotpipe.training.grpo import train_grpo
from cotpipe.training.job import Job
from cotpipe.training.messages import OutOfMemory, Refusal
from cotpipe.training.progress import write_line
from cotpipe.training.sft import train_sft


def main() -> int:
    """Run the job named on the command line; returns the exit status."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    job = Job.model_validate_json(Path(sys.argv[1]).read_bytes())
    threading.Thread(target=_end_with, args=(job.launcher,), daemon=True).start()
    score_targets_only()
    try:
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
        write_line(OutOfMemory(out_of_memory=str(error).strip().splitlines()[0][:300]))
        return 1
    return 0


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether GPU memory (own error class) or host memory (recognized by its message) ran out."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _end_with(launcher: int) -> None:
    """Exit as soon as the launcher is gone; a killed launcher cannot stop its children."""
    while psutil.pid_exists(launcher):
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
