"""A training by TRL and by us, each in a process of its own, in turns: for benchmarks/grpo.py and sft.py."""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

NAMES = ("trl", "cotpipe")
WHAT = ("seconds", "processor_seconds", "peak_gb")


def measure(trainer: Any, num_steps: int) -> dict[str, float]:
    """Train; returns the seconds of a step, the peak memory of this process, and the last loss."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.read: list[tuple[float, float]] = []

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self._read()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self._read()

        def _read(self) -> None:
            self.read.append((time.perf_counter(), time.process_time()))

    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    wall, processor = ((end - start) / num_steps for start, end in zip(*clock.read, strict=True))
    losses = [float(logs["loss"]) for logs in trainer.state.log_history if "loss" in logs]
    return {
        "seconds": wall,
        "processor_seconds": processor,
        "peak_gb": _peak_gb(),
        "last_loss": losses[-1],
    }


def _peak_gb() -> float:
    """The most memory that this process has held: of the GPU, or of the machine without one."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def rounds_of(
    script: str, arguments: Sequence[str], options: Mapping[str, Sequence[str]], num_rounds: int
) -> list[dict[str, dict[str, float]]]:
    """Run a script with `--only NAME` for each trainer in turns; returns what each round has found.

    Args:
        script: The path of the script, which prints what `measure` returns as its last line.
        arguments: Arguments of both trainers.
        options: Further arguments of one, by name.
        num_rounds: How often.
    """
    rounds = []
    for _ in range(num_rounds):
        found = {}
        for name in NAMES:
            command = [script, *arguments, *options.get(name, ()), "--only", name]
            found[name] = _run(name, command)
            sys.stderr.write(f"{name}: {found[name]}\n")
        rounds.append(found)
    return rounds


def _run(name: str, command: Sequence[str]) -> dict[str, float]:
    """Measure in a new process, started as trainings are."""
    from cotpipe.training.launch import _ENVIRONMENT

    environment = (_ENVIRONMENT if name == "cotpipe" else {}) | os.environ
    output = subprocess.run(
        [sys.executable, *command], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, float] = json.loads(output.stdout.splitlines()[-1])
    return found


def told(rounds: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """All figures, and the medians of TRL's divided by ours within a round."""
    result: dict[str, Any] = {
        f"{name}_{what}": [round(one[name][what], 2) for one in rounds]
        for name in NAMES
        for what in WHAT
    }
    for what in WHAT:
        ratios = [one["trl"][what] / one["cotpipe"][what] for one in rounds]
        result[f"ratio_{what}"] = round(statistics.median(ratios), 2)
    return result
