"""Nothing is lost: the curriculum is killed at random moments of every step, and rerun until it ends.

    python benchmarks/kills.py STUDENT --folder EMPTY_FOLDER [--kills 40] [--flaky-s3]

STUDENT is a directory with a tiny model. Every step is killed in turn (SIGKILL to all its processes, a random time
after its lease appears), while a reader checks every record that it can see; once all steps are done, it begins with
an empty store again, until there were enough kills. Then the tables must be the bytes of a run that nobody disturbed,
and no step that was finished may have been done again. With --flaky-s3 the store lies on a real S3 server behind a
proxy that fails one request in ten (500, 503, reset, stall), and the local cache is emptied after every kill.
"""

import argparse
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

from cotpipe.curriculum import STEPS
from cotpipe.records import Record
from cotpipe.settings import Settings
from cotpipe.store import Store, open_store

RECIPE = Path(__file__).parents[1] / "tests" / "tiny.yaml"
MODELS = ("student", "stage1", "stage2", "stage3")
_KILLS_PER_STEP = 3


class Reader(threading.Thread):
    """Reads whatever a record promises, again and again."""

    def __init__(self, store: Store) -> None:
        super().__init__(daemon=True)
        self.store, self.over, self.checks, self.broken = store, threading.Event(), 0, []

    def run(self) -> None:
        """Read until `over` is set."""
        while not self.over.is_set():
            for record in self.store.records():
                self.checks += 1
                if damaged := self.store.damaged_files(record, hashing=True):
                    self.broken.append(f"{record.reference}: {damaged}")


def start(student: Path, address: str) -> subprocess.Popen:
    """A run in a process group of its own, all of which a kill ends: Prefect's server, the training process."""
    options = ["--recipe", str(RECIPE), "--set", f"student.model={student}", "--store", address]
    command = [sys.executable, "-m", "flows.cli", "run", *options]
    environment = os.environ | {"COTPIPE_CHECKPOINT_SECONDS": "0"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def kill(process: subprocess.Popen) -> None:
    """SIGKILL to the run and to all that it has started, wherever that has its own session."""
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
    return {record.kind: record for record in store.records() if record.kind in STEPS}


def kill_within(step: str, store: Store, student: Path, address: str, rng: random.Random) -> bool:
    """Kill a run a random time after `step` has begun; False where the step was over before that."""
    process = start(student, address)
    while step not in finished(store):
        if process.poll() is not None:
            raise SystemExit(f"the run has ended by itself: {process.stderr.read().decode()[-500:]}")
        if any("lease-" in name for name in store.storage.sizes(step)):
            time.sleep(rng.random() * (8.0 if step in MODELS or step.startswith(("eval", "fail")) else 0.02))
            over = step in finished(store)
            kill(process)
            return not over
        time.sleep(0.005)
    kill(process)
    return False


@contextmanager
def flaky_s3(folder: Path) -> Iterator[str]:
    """An S3 server of its own behind a proxy that loses requests; the environment points to it."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from servers import BIN, KEY, SECRET, FlakyProxy, free_port, wait_until_open

    port = free_port()
    (folder / "s3" / "bucket").mkdir(parents=True, exist_ok=True)
    address = f"127.0.0.1:{port}"
    serve = [BIN / "rclone", "serve", "s3", "--auth-key", f"{KEY},{SECRET}", "--addr", address, folder / "s3"]
    with subprocess.Popen(serve, stderr=subprocess.DEVNULL) as server:
        wait_until_open(port, server)
        with FlakyProxy(f"http://{address}", share=0.1, seed=1) as proxy:
            os.environ |= {
                "COTPIPE_S3_ENDPOINT_URL": proxy.address, "COTPIPE_S3_REGION": "us-east-1",
                "COTPIPE_S3_ACCESS_KEY_ID": KEY, "COTPIPE_S3_SECRET_ACCESS_KEY": SECRET, "COTPIPE_S3_TIMEOUT": "2",
                "COTPIPE_CACHE": str(folder / "cache"),
            }  # fmt: skip
            yield "s3://bucket"
            sys.stdout.write(f"requests lost by the proxy: {len(proxy.lost)}\n")
        server.kill()


@dataclass
class Found:
    """What the kills have brought to light."""

    kills: int = 0
    kills_within_a_step: int = 0
    curricula: int = 0
    records_read: int = 0
    half_artifacts: list[str] = field(default_factory=list)
    finished_steps_made_again: list[str] = field(default_factory=list)
    tables_that_differ: list[str] = field(default_factory=list)
    models_that_differ: list[str] = field(default_factory=list)


def kill_a_curriculum(
    student: Path, address: str, undisturbed: dict[str, Record], rng: random.Random, found: Found
) -> None:
    """Begin with an empty store, kill every step a few times, and compare what comes out in the end."""
    store = open_store(Settings(store=address))
    reader = Reader(open_store(Settings(store=address)))
    reader.start()
    known: dict[str, Record] = {}

    def look() -> None:
        nonlocal known
        now = finished(store)
        found.finished_steps_made_again += [kind for kind in known if now[kind].attempt != known[kind].attempt]
        known = now

    for step in STEPS:
        for _ in range(_KILLS_PER_STEP):
            if step not in known:
                found.kills_within_a_step += kill_within(step, store, student, address, rng)
                found.kills += 1
                look()
                if address.startswith("s3://"):
                    shutil.rmtree(Settings().cache, ignore_errors=True)  # the next run begins on an empty disk
    last = start(student, address)
    assert last.wait() == 0, last.stderr.read().decode()
    look()
    reader.over.set()
    reader.join()
    different = [kind for kind in STEPS if undisturbed[kind].files != known[kind].files]
    found.tables_that_differ += [kind for kind in different if kind not in (*MODELS, "report")]
    found.models_that_differ += [kind for kind in different if kind in MODELS]
    found.records_read += reader.checks
    found.half_artifacts += reader.broken
    found.curricula += 1


def main() -> None:
    """Kill, rerun, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("student", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--flaky-s3", action="store_true")
    arguments = parser.parse_args()
    calm = start(arguments.student, str(arguments.folder / "calm"))
    assert calm.wait() == 0, calm.stderr.read().decode()
    undisturbed = finished(open_store(Settings(store=str(arguments.folder / "calm"))))
    found, rng = Found(), random.Random(1)
    with flaky_s3(arguments.folder) if arguments.flaky_s3 else nullcontext(str(arguments.folder)) as root:
        while found.kills < arguments.kills:
            address = f"{root}/killed-{found.curricula + 1}"
            kill_a_curriculum(arguments.student, address, undisturbed, rng, found)
    sys.stdout.write(json.dumps(asdict(found), indent=2) + "\n")
    sys.exit(bool(found.half_artifacts or found.finished_steps_made_again or found.tables_that_differ))


if __name__ == "__main__":
    main()
