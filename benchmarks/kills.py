"""Nothing is lost: the curriculum is killed at random moments of every step, and rerun until it ends.

    python benchmarks/kills.py STUDENT [--store s3://bucket/prefix] [--kills 40]

STUDENT is a directory with a tiny model. Every step is killed in turn (SIGKILL to all its processes, a random time
after its lease appears), while a reader checks every record that it can see. At the end the tables must be the bytes
of a run that nobody disturbed, and no step that was finished may have been done again.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from cotpipe.curriculum import STEPS
from cotpipe.records import Record
from cotpipe.settings import Settings
from cotpipe.store import Store, open_store

RECIPE = Path(__file__).parents[1] / "tests" / "tiny.yaml"
MODELS = ("student", "stage1", "stage2", "stage3")


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
                    self.broken.append((record.reference, damaged))


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
    """The records by kind."""
    return {record.kind: record for record in store.records()}


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


def main() -> None:
    """Kill, rerun, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("student", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--store", help="default: FOLDER/killed")
    parser.add_argument("--kills", type=int, default=40)
    arguments = parser.parse_args()
    calm_address, address = str(arguments.folder / "calm"), arguments.store or str(arguments.folder / "killed")
    calm = start(arguments.student, calm_address)
    assert calm.wait() == 0, calm.stderr.read().decode()
    store, rng = open_store(Settings(store=address)), random.Random(1)
    reader = Reader(open_store(Settings(store=address)))
    reader.start()
    rounds, within, made_again = 0, 0, []
    known: dict[str, Record] = {}
    steps = list(STEPS)
    while rounds < arguments.kills:
        open_steps = [kind for kind in steps if kind not in finished(store)] or steps[-1:]
        # As many kills for each step that is left as there are kills left for it.
        share = max((arguments.kills - rounds) // len(open_steps), 1)
        for _ in range(share):
            if open_steps[0] in finished(store):
                break
            within += kill_within(open_steps[0], store, arguments.student, address, rng)
            rounds += 1
            now = finished(store)
            made_again += [kind for kind, record in known.items() if now[kind].attempt != record.attempt]
            known = now
        if len(finished(store)) == len(steps):
            break
    last = start(arguments.student, address)
    assert last.wait() == 0, last.stderr.read().decode()
    now = finished(store)
    made_again += [kind for kind, record in known.items() if now[kind].attempt != record.attempt]
    reader.over.set()
    reader.join()
    undisturbed = finished(open_store(Settings(store=calm_address)))
    tables = [kind for kind in steps if kind not in (*MODELS, "report")]
    different = [kind for kind in tables if undisturbed[kind].files != now[kind].files]
    result = {
        "kills": rounds, "kills_within_a_step": within, "records_read": reader.checks, "half_artifacts": reader.broken,
        "finished_steps_made_again": made_again, "tables_compared": len(tables), "tables_that_differ": different,
        "models_that_differ": [kind for kind in MODELS if undisturbed[kind].files != now[kind].files],
    }  # fmt: skip
    sys.stdout.write(json.dumps(result, default=str, indent=2) + "\n")
    sys.exit(bool(reader.broken or made_again or different))


if __name__ == "__main__":
    main()
