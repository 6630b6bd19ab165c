"""Seeds side by side: how their processes share the machine, fail and end. They stand in for trainings."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from flows.cli.seeds import Seeds
from tests.helpers.polling import wait_until

_CHILD = """
import os, signal, sys, threading
from pathlib import Path
from flows.cli import seeds

folder, seed = Path(sys.argv[1]), sys.argv[sys.argv.index("--seed") + 1]
(folder / f"{seed}.started").write_text(f"{os.getpid()} {os.environ['OMP_NUM_THREADS']}")
seeds._with_parent(lambda: exec((folder / "does.py").read_text()))
"""


@pytest.fixture
def seeds(tmp_path, monkeypatch):
    """Seeds of which each runs some Python code."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def make(code: str, at_once: int, processes_each: int = 1) -> Seeds:
        (tmp_path / "does.py").write_text(code)
        found = Seeds([str(tmp_path)], at_once, processes_each)
        found._command = [sys.executable, "-c", _CHILD, str(tmp_path)]
        return found

    return make


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("sys.stderr.write('cotpipe: no student\\nWarning: a leak\\n'); sys.exit(2)", "no student"),
        ("sys.stderr.write('stage1: 40 of 100\\n'); os.kill(os.getpid(), 9)", "ended by SIGKILL"),
        ("sys.stderr.write('\\n'); sys.exit(3)", "ended with status 3"),
        ("sys.stderr.buffer.write(b'cotpipe: \\xff\\n'); sys.exit(1)", "\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_a_seed_that_fails_is_told_whatever_it_said_last(seeds, capsys, code, why):
    with seeds(f"if seed == '2':\n    {code}", 2) as several:
        failed = several.run([1, 2, 3])
    assert list(failed) == [2]
    assert why in failed[2]


def test_so_many_run_at_a_time_with_their_share_of_the_cores(seeds, tmp_path, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 12)
    both = "while not all((folder / f'{n}.started').exists() for n in (1, 2)): pass"
    with seeds(f"if seed != '3':\n    {both}", 2, processes_each=3) as several:
        assert several.run([1, 2, 3]) == {}
    threads = {path.read_text().split()[1] for path in tmp_path.glob("*.started")}
    assert threads == {"2"}


_FOR_EVER = "threading.Event().wait()"


def test_an_interrupt_ends_those_that_run_and_starts_no_other(seeds, tmp_path):
    def interrupt() -> None:
        wait_until(lambda: len(list(tmp_path.glob("*.started"))) == 2)
        os.kill(os.getpid(), signal.SIGINT)

    watcher = threading.Thread(target=interrupt)
    with pytest.raises(KeyboardInterrupt), seeds(_FOR_EVER, 2) as several:
        watcher.start()
        several.run([1, 2, 3])
    watcher.join()
    assert sorted(path.stem for path in tmp_path.glob("*.started")) == ["1", "2"]
    assert not any(is_running(path) for path in tmp_path.glob("*.started"))


def is_running(started: Path) -> bool:
    return psutil.pid_exists(int(started.read_text().split()[0]))


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_they_end_with_the_process_that_started_them(tmp_path, end):
    (tmp_path / "does.py").write_text(_FOR_EVER)
    parent = f"""
import sys
from flows.cli.seeds import Seeds
with Seeds([], 2) as several:
    several._command = [sys.executable, "-c", {_CHILD!r}, {str(tmp_path)!r}]
    several.run([1, 2])
"""
    with subprocess.Popen([sys.executable, "-c", parent]) as process:
        wait_until(lambda: len(list(tmp_path.glob("*.started"))) == 2)
        wait_until(lambda: all(path.read_text() for path in tmp_path.glob("*.started")))
        process.send_signal(end)
    wait_until(lambda: not any(is_running(path) for path in tmp_path.glob("*.started")))
