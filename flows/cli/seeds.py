"""The seeds of a comparison side by side, each in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from cotpipe.errors import RunError
from cotpipe.training.processes import threads_each


def run_seeds(command: Sequence[str], seeds: Sequence[int], at_once: int) -> None:
    """Run a command of cotpipe with every seed; its lines on standard error begin with the seed.

    Args:
        command: The command and its options, without `--seed`.
        seeds: The seeds.
        at_once: Number of processes at a time; each gets its share of the cores.

    Raises:
        RunError: Seeds that failed, at the end: the others run all the same.
    """
    environment = os.environ | {"OMP_NUM_THREADS": threads_each(min(at_once, len(seeds)))}

    def run(seed: int) -> str:
        """Run one seed; returns its last line if it failed."""
        with subprocess.Popen(
            [sys.executable, "-P", "-m", "flows.cli", *command, "--seed", str(seed)],
            env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True,
        ) as process:  # fmt: skip
            assert process.stderr
            line = ""
            for line in process.stderr:
                sys.stderr.write(f"{seed:<4} {line}")
                sys.stderr.flush()
        return line.strip().removeprefix("cotpipe: ") if process.returncode else ""

    pool = ThreadPoolExecutor(at_once)
    try:
        failed = [(seed, why) for seed, why in zip(seeds, pool.map(run, seeds), strict=True) if why]
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C is told to the processes, too; no other starts
    if failed:
        told = "; ".join(f"seed {seed}: {why}" for seed, why in failed)
        raise RunError(f"{len(failed)} of {len(seeds)} seeds failed: {told}")
