"""Training in a process of its own: a job file goes in, events and a checkpoint come out."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from pydantic import ValidationError

from cotpipe.errors import RunError, TransientError, UserError
from cotpipe.training.job import Event, OutOfMemory, Refusal, Rows, Saved, Stage1Job, Stage2Job, Stage3Job

# Big buffers are kept (up to 128 MB that is free), not handed back and faulted in again at every step: training on a
# CPU is faster for it, and with higher bounds its memory grows from step to step.
_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "134217728",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "ACCELERATE_LOG_LEVEL": "error",
}
_LAUNCHER = "accelerate.commands.launch"


def train(
    job: Stage1Job | Stage2Job | Stage3Job,
    num_processes: int,
    on_event: Callable[[Event], None],
    on_saved: Callable[[Saved], None],
    on_line: Callable[[str], None],
) -> tuple[Rows, list[Event]]:
    """Run a job to its end; returns the rows it kept and its events. The process dies with this call, however it ends.

    What it writes on standard error goes to `on_line`. Raises `UserError` for what the process says is the user's
    mistake, `MemoryError` when its memory is too small, `TransientError` when somebody kills it, `RunError` when it
    dies of something else.
    """
    job.work.mkdir(parents=True, exist_ok=True)
    job_file, log_file = job.work / "job.json", job.work / "log.txt"
    job_file.write_text(job.model_dump_json(indent=2), encoding="utf-8")
    launcher = ["--num_processes", str(num_processes), "--num_machines", "1", "--mixed_precision", "no"]
    # Without this, accelerate gives a process on a CPU a single thread.
    launcher += ["--num_cpu_threads_per_process", str(max((os.cpu_count() or 1) // num_processes, 1))]
    launcher += ["--dynamo_backend", "no", *(["--multi_gpu"] if num_processes > 1 else [])]
    command = [sys.executable, "-m", _LAUNCHER, *launcher, "-m", "cotpipe.training", str(job_file)]
    events: list[Event] = []
    rows = Rows(rows_kept=0, rows_dropped=0)
    refusal: str | None = None
    out_of_memory: str | None = None
    with log_file.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_ENVIRONMENT | os.environ,
            text=True,
            start_new_session=True,
        )
        assert process.stdout
        assert process.stderr
        listener = threading.Thread(target=_listen, args=(process.stderr, log, on_line), daemon=True)
        listener.start()
        try:
            for line in process.stdout:
                message = _read(line)
                if isinstance(message, Event):
                    events.append(message)
                    on_event(message)
                elif isinstance(message, Saved):
                    on_saved(message)
                elif isinstance(message, Rows):
                    rows = message
                elif isinstance(message, Refusal):
                    refusal = message.user_error
                elif isinstance(message, OutOfMemory):
                    out_of_memory = message.out_of_memory
                else:
                    log.write(line)  # the trainer prints what the events tell already
            status = process.wait()
        finally:
            _end(process)
            listener.join(timeout=10)
    if refusal:
        raise UserError(refusal)
    if out_of_memory:
        raise MemoryError(out_of_memory)
    if status and _was_killed(status, log_file):
        raise TransientError(
            f"training of {job.kind} was killed (status {status}); the operating system does that when memory runs out"
        )
    if status:
        raise RunError(f"training of {job.kind} ended with status {status}: {_last_line(log_file)}")
    return rows, events


def _listen(stderr: TextIO, log: TextIO, on_line: Callable[[str], None]) -> None:
    for line in stderr:
        log.write(line)
        log.flush()
        if line.strip():
            on_line(line.rstrip())


def _was_killed(status: int, log_file: Path) -> bool:
    """Whether the launcher, or the training process on whose end it reports in its last words, was killed."""
    last_words = log_file.read_text(encoding="utf-8", errors="replace")[-2000:]
    return status in (-signal.SIGKILL, -signal.SIGTERM) or bool(re.search(r"SIG(KILL|TERM)", last_words))


def _read(line: str) -> Event | Saved | Rows | Refusal | OutOfMemory | None:
    """A line of the process's standard output: one of ours, or something that a library printed."""
    for kind in (Event, Saved, Rows, Refusal, OutOfMemory):
        try:
            return kind.model_validate_json(line)
        except ValidationError:
            continue
    return None


def _end(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _last_line(log_file: Path) -> str:
    """The line of a log that says what went wrong: the last one of the form `SomeError: ...`, else the last."""
    lines = [
        line.strip() for line in log_file.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
    ]
    errors = [line for line in lines if "Error" in line.split(":", 1)[0] and "CalledProcessError" not in line]
    return (errors or lines or ["it said nothing"])[-1][:500]
