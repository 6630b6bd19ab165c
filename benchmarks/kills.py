"""Crash test: kill the curriculum at random times in every step, and rerun until it completes.

    python benchmarks/kills.py STUDENT --folder EMPTY_FOLDER [--kills 40] [--flaky-s3] [--skew 120]

STUDENT is a directory with a tiny model. Each step is killed in turn (SIGKILL to all its processes, a
random time after its lease appears) while a reader verifies every visible record. When all steps are
done, it starts over with an empty store, until there were enough kills. The tables must then equal
those of an uninterrupted run byte for byte, and no finished step may have run again. Meanwhile `gc` runs
every few seconds, without a grace period and keeping no finished run; an artifact of no run that is
put there each time must go. With --skew, the clock of every second run is ahead (libfaketime; Debian:
`apt install faketime`). With --flaky-s3 the store is on a real S3 server behind a proxy that fails one
request in ten (500, 503, reset, stall), and the local cache is emptied after every kill.
"""

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cotpipe.errors import TransientError
from cotpipe.recipe.model import Recipe
from cotpipe.runs.collection import collect_garbage
from cotpipe.runs.garbage import find_garbage
from cotpipe.settings import Settings
from cotpipe.steps.curriculum import steps_of
from cotpipe.store.artifacts import Store, open_store
from cotpipe.store.records import Record

RECIPE = Path(__file__).parents[1] / "tests" / "helpers" / "tiny.yaml"
KINDS = list(steps_of(Recipe()))
MODELS = ("student", "stage1", "stage2", "stage3")
_SECONDS_BETWEEN_GC = 3.0


class Reader(threading.Thread):
    """Verifies the files of all visible records in a loop."""

    def __init__(self, store: Store) -> None:
        super().__init__(daemon=True)
        self.store, self.over, self.checks, self.broken = store, threading.Event(), 0, []

    def run(self) -> None:
        """Read until `over` is set."""
        while not self.over.is_set():
            for record in self.store.records():
                self.checks += 1
                if damaged := self.store.damaged_files(record):
                    self.broken.append(f"{record.reference}: {damaged}")


class Collector(threading.Thread):
    """Collects garbage every few seconds, after putting some there."""

    def __init__(self, store: Store) -> None:
        super().__init__(daemon=True)
        self.store, self.over, self.removed, self.failed = store, threading.Event(), 0, []

    def run(self) -> None:
        """Collect until `over` is set."""
        number = 0
        while not self.over.wait(_SECONDS_BETWEEN_GC):
            number += 1
            try:
                self.store.storage.replace(f"problems/{number:032x}/00000000/file", b"garbage")
                look, garbage = find_garbage(self.store, keep_runs=0, grace=0)
                self.removed += len(collect_garbage(self.store, look, garbage))
            except TransientError:
                continue  # the flaky server
            except Exception as error:  # noqa: BLE001 - a finding
                self.failed.append(repr(error))


_starts = itertools.count()


def start(student: Path, address: str, skew: int = 0) -> subprocess.Popen:
    """Start a run in a session of its own; the clock of every second one is `skew` seconds ahead."""
    options = ["--recipe", str(RECIPE), "--set", f"student.model={student}", "--store", address]
    command = [sys.executable, "-m", "flows.cli", "run", *options]
    environment = os.environ | {"COTPIPE_TRAINING_STATE_SECONDS": "0"}
    if skew and next(_starts) % 2:
        (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
        environment |= {
            "LD_PRELOAD": str(library), "FAKETIME": f"+{skew}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_NO_CACHE": "1",
        }  # fmt: skip
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def kill(process: subprocess.Popen) -> None:
    """Send SIGKILL to the run and all its descendants, including those in other sessions."""
    listed = subprocess.check_output(["ps", "-eo", "pid=,ppid="], text=True)  # noqa: S607
    parents = {int(pid): int(parent) for pid, parent in map(str.split, listed.splitlines())}
    doomed = {process.pid}
    while more := {pid for pid, parent in parents.items() if parent in doomed} - doomed:
        doomed |= more
    for pid in doomed:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def finished(store: Store) -> dict[str, Record]:
    """The records of finished steps by kind; shards are parts of them."""
    return {record.kind: record for record in store.records() if record.kind in KINDS}


def kill_within(
    step: str, store: Store, student: Path, address: str, skew: int, rng: random.Random
) -> bool:
    """Kill a run a random time after a step has started.

    Args:
        step: Kind of the step.
        store: The store of the run.
        student: Directory of the student.
        address: Address of the store.
        skew: See `start`.
        rng: Chooses the time.

    Returns:
        Whether the step was still running.
    """
    process = start(student, address, skew)
    while step not in finished(store):
        if process.poll() is not None:
            raise SystemExit(f"the run exited by itself: {process.stderr.read().decode()[-500:]}")
        if any("lease-" in name for name in store.storage.sizes(step)):
            time.sleep(
                rng.random()
                * (8.0 if step in MODELS or step.startswith(("eval", "fail")) else 0.02)
            )
            over = step in finished(store)
            kill(process)
            return not over
        time.sleep(0.005)
    kill(process)
    return False


@contextmanager
def flaky_s3(folder: Path) -> Iterator[str]:
    """An S3 server behind a proxy that fails requests; sets the environment for it."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.helpers.s3 import KEY, SECRET, rclone
    from tests.helpers.servers import FlakyProxy

    with rclone(folder / "s3") as server, FlakyProxy(server, share=0.1, seed=1) as proxy:
        os.environ |= {
            "COTPIPE_S3_ENDPOINT_URL": proxy.address, "COTPIPE_S3_REGION": "us-east-1",
            "COTPIPE_S3_ACCESS_KEY_ID": KEY, "COTPIPE_S3_SECRET_ACCESS_KEY": SECRET, "COTPIPE_S3_TIMEOUT": "2",
            "COTPIPE_CACHE": str(folder / "cache"),
        }  # fmt: skip
        yield "s3://bucket"
        sys.stdout.write(f"requests lost by the proxy: {len(proxy.lost)}\n")


@dataclass
class Found:
    """Counts and findings of the test."""

    kills: int = 0
    kills_within_a_step: int = 0
    curricula: int = 0
    records_read: int = 0
    collected: int = 0
    failed_collections: list[str] = field(default_factory=list)
    half_artifacts: list[str] = field(default_factory=list)
    finished_steps_made_again: list[str] = field(default_factory=list)
    tables_that_differ: list[str] = field(default_factory=list)
    models_that_differ: list[str] = field(default_factory=list)


def kill_a_curriculum(
    student: Path,
    address: str,
    undisturbed: dict[str, Record],
    skew: int,
    per_step: int,
    rng: random.Random,
    found: Found,
) -> None:
    """Run a curriculum in an empty store, kill every step a few times, and compare the artifacts.

    Args:
        student: Directory of the student.
        address: Address of the empty store.
        undisturbed: The records of an uninterrupted run, by kind.
        skew: See `start`.
        per_step: Kills of each step, at most.
        rng: Chooses the times of the kills.
        found: Collects the findings.
    """
    store = open_store(Settings(store=address))
    reader = Reader(open_store(Settings(store=address)))
    collector = Collector(open_store(Settings(store=address)))
    for thread in (reader, collector):
        thread.start()
    known: dict[str, Record] = {}

    def look() -> None:
        nonlocal known
        now = finished(store)
        found.finished_steps_made_again += [
            kind for kind in known if now[kind].attempt != known[kind].attempt
        ]
        known = now

    for step in KINDS:
        for _ in range(per_step):
            if step not in known:
                found.kills_within_a_step += kill_within(step, store, student, address, skew, rng)
                found.kills += 1
                look()
                if address.startswith("s3://"):
                    shutil.rmtree(
                        Settings().cache, ignore_errors=True
                    )  # the next run starts without a cache
    last = start(student, address, skew)
    collector.over.set()  # what is finished is kept by no run then
    assert last.wait() == 0, last.stderr.read().decode()
    look()
    reader.over.set()
    for thread in (reader, collector):
        thread.join()
    different = [kind for kind in KINDS if undisturbed[kind].files != known[kind].files]
    found.tables_that_differ += [kind for kind in different if kind not in (*MODELS, "report")]
    found.models_that_differ += [kind for kind in different if kind in MODELS]
    found.records_read += reader.checks
    found.half_artifacts += reader.broken
    found.curricula += 1
    found.collected += collector.removed
    found.failed_collections += collector.failed


def main() -> None:
    """Run the test and print the findings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("student", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--kills-per-step", type=int, default=3)
    parser.add_argument("--flaky-s3", action="store_true")
    parser.add_argument("--skew", type=int, default=0, help="seconds")
    arguments = parser.parse_args()
    calm = start(arguments.student, str(arguments.folder / "calm"))
    assert calm.wait() == 0, calm.stderr.read().decode()
    undisturbed = finished(open_store(Settings(store=str(arguments.folder / "calm"))))
    found, rng = Found(), random.Random(1)
    with (
        flaky_s3(arguments.folder)
        if arguments.flaky_s3
        else nullcontext(str(arguments.folder)) as root
    ):
        while found.kills < arguments.kills:
            address = f"{root}/killed-{found.curricula + 1}"
            limits = arguments.skew, arguments.kills_per_step
            kill_a_curriculum(arguments.student, address, undisturbed, *limits, rng, found)
    sys.stdout.write(json.dumps(asdict(found), indent=2) + "\n")
    sys.exit(
        bool(
            found.half_artifacts
            or found.finished_steps_made_again
            or found.tables_that_differ
            or found.failed_collections
        )
    )


if __name__ == "__main__":
    main()
