"""Four runs of one recipe start at once on one store: each artifact is made once.

    python benchmarks/together.py STUDENT STORE

STUDENT is a directory with a tiny model, STORE an empty folder or prefix.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from cotpipe.curriculum import STEPS
from cotpipe.runs import read_runs
from cotpipe.settings import Settings
from cotpipe.store import open_store

RECIPE = Path(__file__).parents[1] / "tests" / "tiny.yaml"
NUM_RUNS = 4


def main() -> None:
    """Start them, wait for them, count who made what."""
    student, address = sys.argv[1:]
    options = ["--recipe", str(RECIPE), "--set", f"student.model={student}", "--store", address]
    command = [sys.executable, "-m", "flows.cli", "run", *options]
    started = time.perf_counter()
    runs = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(NUM_RUNS)]
    errors = [run.communicate()[1].decode() for run in runs]
    assert not any(run.returncode for run in runs), errors
    store = open_store(Settings(store=address))
    made = Counter(kind for run in read_runs(store.storage) for kind, step in run.steps.items() if not step.reused)
    artifacts = sum(record.kind in STEPS for record in store.records())  # shards are parts of them
    result = {
        "runs": NUM_RUNS, "seconds": round(time.perf_counter() - started, 1), "artifacts": artifacts,
        "made_once": sum(count == 1 for count in made.values()),
        "made_more_often": [kind for kind, count in made.items() if count > 1],
    }  # fmt: skip
    sys.stdout.write(json.dumps(result) + "\n")
    sys.exit(made != Counter(STEPS))


if __name__ == "__main__":
    main()
