"""The seeds of a comparison side by side, each in a process of its own.

A process ends with the one that has started it, however that ends: its standard input is a pipe,
which the system closes then.
"""

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from cotpipe.training.processes import threads_each

_SECONDS_TO_END = 60.0


class Seeds:
    """Runs a command of cotpipe with several seeds; a `with` block ends those that still run."""

    def __init__(self, command: Sequence[str], at_once: int, processes_each: int = 1) -> None:
        """Prepare to run.

        Args:
            command: The command and its options, without `--seed`.
            at_once: Number of seeds at a time.
            processes_each: Number of processes that train one seed; all of them share the cores.
        """
        self._command = [sys.executable, "-P", "-m", "flows.cli.seeds", *command]
        threads = threads_each(at_once * processes_each)
        self._environment = os.environ | {"OMP_NUM_THREADS": threads}
        self._pool = ThreadPoolExecutor(at_once)
        self._running: set[subprocess.Popen[str]] = set()
        self._is_over = False

    def __enter__(self) -> "Seeds":
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in list(self._running):
            _tell_to_end(process)
        self._pool.shutdown()

    def run(self, seeds: Sequence[int]) -> dict[int, str]:
        """Run all seeds; lines on standard error begin with the seed. Returns why some failed."""
        reasons = self._pool.map(self._run, seeds)
        return {seed: why for seed, why in zip(seeds, reasons, strict=True) if why}

    def _run(self, seed: int) -> str:
        with subprocess.Popen(
            [*self._command, "--seed", str(seed)],
            env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            encoding="utf-8", errors="replace",
            start_new_session=True,  # Ctrl-C is for the first process, which ends the others
        ) as process:  # fmt: skip
            self._running.add(process)
            if self._is_over:  # it has started meanwhile
                _tell_to_end(process)
            assert process.stderr
            said = ""
            for line in process.stderr:
                if line.startswith("cotpipe: "):  # told at the end
                    said = line.strip().removeprefix("cotpipe: ")
                else:
                    sys.stderr.write(f"{seed:<4} {line}")
                    sys.stderr.flush()
            status = process.wait()
            self._running.discard(process)
        if status < 0:
            return f"it was ended by {signal.Signals(-status).name}"
        return (said or f"it ended with status {status}") if status else ""


def _tell_to_end(process: "subprocess.Popen[str]") -> None:
    assert process.stdin
    process.stdin.close()


def _with_parent(call: Callable[[], None]) -> None:
    """Call a function, and interrupt it when the process that started this one ends."""
    over, ended = os.pipe()
    watcher = threading.Thread(target=_watch, args=(over,))
    watcher.start()
    try:
        call()
    finally:
        os.close(ended)
        watcher.join()  # DuckDB reports what a thread still holds at the exit


def _watch(over: int) -> None:
    ready, _, _ = select.select([sys.stdin, over], [], [])
    if over in ready:
        return
    os.kill(os.getpid(), signal.SIGINT)
    if not select.select([over], [], [], _SECONDS_TO_END)[0]:
        os._exit(1)


if __name__ == "__main__":
    from flows.cli.main import main

    _with_parent(main)
