"""What Prefect costs: the bookkeeping of a run, of a progress update, and of a mapped shard.

    python benchmarks/orchestration.py STORE RECIPE [--set KEY=VALUE]

STORE holds a finished run of RECIPE. The run is taken again, everything reused, once by the library alone and once as a
Prefect flow against a real server; the difference is the bookkeeping. A run of an hour has that once, an update of its
progress every 5 seconds and a line of its log every 15.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable

from prefect import flow
from prefect.settings import PREFECT_LOGGING_LEVEL, temporary_settings
from prefect.testing.utilities import prefect_test_harness

from cotpipe.config import Recipe
from cotpipe.curriculum import STEPS
from cotpipe.recipes import load_recipe
from cotpipe.records import Record, Reference
from cotpipe.settings import Settings
from cotpipe.steps.step import Outcome, Silent, StepRunner
from cotpipe.store import open_store
from flows.curriculum import curriculum
from tasks.progress import StepProgress
from tasks.shards import side_by_side

NUM_SHARDS, NUM_UPDATES = 100, 100
REFERENCE = Reference(kind="generations", fingerprint="0" * 32)
RECORD = Record(
    kind="generations", fingerprint="0" * 32, attempt="0" * 8, step_version=1, fields={}, inputs={}, counts={},
    files=[], versions={}, made_at="2026-01-01T00:00:00+00:00", seconds=0.0,
)  # fmt: skip


@flow
def shards() -> float:
    """Seconds for `NUM_SHARDS` shards that do nothing."""
    return seconds(lambda: side_by_side([lambda: Outcome(REFERENCE, reused=True, record=RECORD)] * NUM_SHARDS))


@flow
def updates() -> float:
    """Seconds for `NUM_UPDATES` updates of a progress artifact."""
    with StepProgress("benchmark") as progress:

        def update() -> None:
            for number in range(NUM_UPDATES):
                progress.show(100 * number / NUM_UPDATES, "loss 1.0")

        return seconds(update)


def alone(recipe: Recipe) -> None:
    """The steps of a run without Prefect."""
    found: dict[str, Reference] = {}
    runner = StepRunner(open_store(Settings()), Settings(), Silent())
    for kind, step in STEPS.items():
        outcome = runner.run(step, recipe, {name: found[name] for name in step.inputs})
        assert outcome.reused, f"{kind} is not in the store"
        found[kind] = outcome.reference


def seconds(work: Callable[[], object]) -> float:
    """How long something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("recipe")
    parser.add_argument("--set", action="append", default=[], dest="changes")
    arguments = parser.parse_args()
    os.environ["COTPIPE_STORE"] = arguments.store
    recipe = load_recipe(arguments.recipe, arguments.changes)
    with prefect_test_harness(server_startup_timeout=120), temporary_settings({PREFECT_LOGGING_LEVEL: "WARNING"}):
        alone(recipe)  # imports
        curriculum(recipe=recipe)
        library = min(seconds(lambda: alone(recipe)) for _ in range(3))
        orchestrated = min(seconds(lambda: curriculum(recipe=recipe)) for _ in range(3))
        per_update = updates() / NUM_UPDATES
        per_shard = shards() / NUM_SHARDS
    fixed = orchestrated - library
    hour = fixed + 3600 / 5 * per_update
    result = {
        "alone_seconds": library,
        "as_a_flow_seconds": orchestrated,
        "update_ms": 1000 * per_update,
        "percent_of_an_hour": hour / 36,
        "shard_ms": 1000 * per_shard,
    }
    sys.stdout.write(json.dumps({name: round(value, 2) for name, value in result.items()}) + "\n")


if __name__ == "__main__":
    main()
