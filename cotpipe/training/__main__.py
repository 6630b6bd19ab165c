"""A training process: `accelerate launch -m cotpipe.training JOB.json`; events on standard output, a log elsewhere."""

import logging
import os
import sys
import threading
import time
from pathlib import Path

import psutil
import torch
from pydantic import TypeAdapter

from cotpipe.errors import UserError
from cotpipe.training.cpu import score_targets_only
from cotpipe.training.grpo import train_stage2, train_stage3
from cotpipe.training.job import Job, OutOfMemory, Refusal, Stage1Job, Stage2Job
from cotpipe.training.progress import write_line
from cotpipe.training.sft import train_stage1


def main() -> int:
    """Run the one job named on the command line; returns the exit status."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    job: Job = TypeAdapter(Job).validate_json(Path(sys.argv[1]).read_bytes())
    threading.Thread(target=_end_with, args=(job.launcher,), daemon=True).start()
    score_targets_only()
    try:
        if isinstance(job, Stage1Job):
            train_stage1(job)
        elif isinstance(job, Stage2Job):
            train_stage2(job)
        else:
            train_stage3(job)
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
    """A GPU's memory has an error of its own; torch says in words that the machine's has run out."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _end_with(launcher: int) -> None:
    """End at once when the launcher is gone: killed, it can end nobody, and nobody would take what is trained on."""
    while psutil.pid_exists(launcher):
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
