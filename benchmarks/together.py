"""Concurrency test: four runs of a recipe start at once on a store; each artifact is made once.

    python benchmarks/together.py STUDENT STORE

STUDENT is a directory with a tiny model, STORE an empty folder or prefix.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from cotpipe.recipe.model import Recipe
from cotpipe.runs.log import read_runs
from cotpipe.settings import Settings
from cotpipe.steps.curriculum import steps_of
from cotpipe.store.artifacts import open_store

RECIPE = Path(__file__).parents[1] / "tests" / "helpers" / "tiny.yaml"
KINDS = list(steps_of(Recipe()))
NUM_RUNS = 4


def main() -> None:
    """Start the runs, wait for them, and count which made each artifact."""
    student, address = sys.argv[1:]
    options = ["--recipe", str(RECIPE), "--set", f"student.model={student}", "--store", address]
    command = [sys.executable, "-m", "flows.cli", "run", *options]
    started = time.perf_counter()
    runs = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(NUM_RUNS)
    ]
    errors = [run.communicate()[1].decode() for run in runs]
    assert not any(run.returncode for run in runs), errors
    store = open_store(Settings(store=address))
    made = Counter(
        kind
        for run in read_runs(store.storage)
        for kind, step in run.steps.items()
        if not step.reused
    )
    artifacts = sum(record.kind in KINDS for record in store.records())  # shards are parts of them
    result = {
        "runs": NUM_RUNS, "seconds": round(time.perf_counter() - started, 1), "artifacts": artifacts,
        "made_once": sum(count == 1 for count in made.values()),
        "made_more_often": [kind for kind, count in made.items() if count > 1],
    }  # fmt: skip
    sys.stdout.write(json.dumps(result) + "\n")
    sys.exit(made != Counter(KINDS))


if __name__ == "__main__":
    main()
