"""A training process: `accelerate launch -m cotpipe.training JOB.json`; events on standard output, a log elsewhere."""

import logging
import os
import sys
import threading
import time
from pathlib import Path

import psutil
from pydantic import TypeAdapter

from cotpipe.errors import UserError
from cotpipe.training.cpu import score_targets_only
from cotpipe.training.grpo import train_stage2, train_stage3
from cotpipe.training.job import Job, Refusal, Stage1Job, Stage2Job
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
    return 0


def _end_with(launcher: int) -> None:
    """End at once when the launcher is gone: killed, it can end nobody, and nobody would take what is trained on."""
    while psutil.pid_exists(launcher):
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
