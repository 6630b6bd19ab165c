"""Running training in a child process: a job file in, messages and a checkpoint out."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from cotpipe.training.endings import Ending, raise_for
from cotpipe.training.job import Job
from cotpipe.training.messages import (
    Event,
    Failure,
    Kept,
    OutOfMemory,
    Refusal,
    Rows,
    SavedTrainingState,
    Validated,
    read_message,
)
from cotpipe.training.processes import command, threads_each
from cotpipe.training.trackers import tracking_variables

# Keep large buffers (up to 128 MB free) instead of returning them to the system and faulting them
# in again at every optimizer step, which speeds up training on a CPU. With higher bounds, memory
# grows from step to step.
_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "134217728",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}


@dataclass
class Trained:
    """What a training process reported."""

    rows: Rows = field(default_factory=lambda: Rows(rows_kept=0))
    events: list[Event] = field(default_factory=list)
    validated: list[Validated] = field(default_factory=list)
    kept: Kept | None = None  # None: the last state


def train(
    job: Job,
    num_processes: int,
    on_event: Callable[[Event], None],
    on_training_state: Callable[[SavedTrainingState], None],
    on_line: Callable[[str], None],
) -> Trained:
    """Run a job to completion; the child process never outlives this call.

    Args:
        job: What to train.
        num_processes: Number of training processes, one per GPU.
        on_event: Called with the metrics of every optimizer step.
        on_training_state: Called with every training state; takes ownership of its folder.
        on_line: Called with every line of the process's standard error.

    Raises as `endings.raise_for` does.
    """
    job.work.mkdir(parents=True, exist_ok=True)
    job_file, log_file = job.work / "job.json", job.work / "log.txt"
    job_file.write_text(job.model_dump_json(indent=2), encoding="utf-8")
    trained = Trained()
    ending: Ending | None = None
    with log_file.open("w", encoding="utf-8") as log:
        process = _start(job, job_file, num_processes)
        assert process.stdout
        assert process.stderr
        listener = threading.Thread(
            target=_listen, args=(process.stderr, log, on_line), daemon=True
        )
        listener.start()
        try:
            for line in process.stdout:
                match read_message(line):
                    case Event() as event:
                        trained.events.append(event)
                        on_event(event)
                    case SavedTrainingState() as saved:
                        on_training_state(saved)
                    case Validated() as validated:
                        trained.validated.append(validated)
                    case Kept() as kept:
                        trained.kept = kept
                    case Rows() as rows:
                        trained.rows = rows
                    case Refusal() | OutOfMemory() | Failure() as said:
                        ending = ending or said
                    case None:
                        log.write(line)  # printed by a library
            status = process.wait()
        finally:
            _end(process)
            listener.join(timeout=10)
    raise_for(job.stage.name, status, ending, log_file)
    return trained


def _start(job: Job, job_file: Path, num_processes: int) -> "subprocess.Popen[str]":
    defaults = _ENVIRONMENT | (tracking_variables(job) if job.trackers else {})
    return subprocess.Popen(
        command(job_file, num_processes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=defaults | os.environ | {"OMP_NUM_THREADS": threads_each(num_processes)},
        text=True,
        start_new_session=True,
    )


def _listen(stderr: TextIO, log: TextIO, on_line: Callable[[str], None]) -> None:
    for line in stderr:
        log.write(line)
        log.flush()
        if line.strip():
            on_line(line.rstrip())


def _end(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
