"""Overhead of Prefect: per run, per progress update, and per mapped shard.

    python benchmarks/orchestration.py STORE RECIPE [--set KEY=VALUE]

STORE contains a finished run of RECIPE. All steps are reused, once by the library alone and once as
a Prefect flow against a real server; the difference is the overhead of a run. A run of an hour adds
an update of its progress every 5 seconds and a log line every 15.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable

from prefect import flow
from prefect.logging import get_run_logger
from prefect.settings import PREFECT_LOGGING_LEVEL, temporary_settings
from prefect.testing.utilities import prefect_test_harness

from cotpipe.progress import Silent
from cotpipe.recipe.files import load_recipe
from cotpipe.recipe.model import Recipe
from cotpipe.settings import Settings
from cotpipe.steps.curriculum import steps_of
from cotpipe.steps.runner import Outcome, StepRunner
from cotpipe.store.artifacts import open_store
from cotpipe.store.records import Record, Reference
from flows.curriculum import curriculum
from tasks.progress import ProgressArtifact, Standing
from tasks.shards import side_by_side

NUM_SHARDS, NUM_UPDATES = 100, 100
REFERENCE = Reference(kind="generations", fingerprint="0" * 32)
RECORD = Record(
    kind="generations", fingerprint="0" * 32, attempt="0" * 8, step_version=1, fields={}, inputs={}, counts={},
    files=[], versions={}, made_at="2026-01-01T00:00:00+00:00", seconds=0.0,
)  # fmt: skip


@flow
def shards() -> float:
    """Seconds for `NUM_SHARDS` empty shards."""
    return seconds(
        lambda: side_by_side([lambda: Outcome(REFERENCE, reused=True, record=RECORD)] * NUM_SHARDS)
    )


@flow
def updates() -> float:
    """Seconds for `NUM_UPDATES` updates of a progress artifact."""
    artifact = ProgressArtifact("benchmark", get_run_logger())

    def update() -> None:
        for number in range(NUM_UPDATES):
            artifact.show(Standing(f"loss {number}", 100 * number / NUM_UPDATES), last=False)

    return seconds(update)


def alone(recipe: Recipe) -> None:
    """Run the steps without Prefect."""
    found: dict[str, Reference] = {}
    runner = StepRunner(open_store(Settings()), Settings(), Silent())
    for kind, step in steps_of(recipe).items():
        outcome = runner.run(step, recipe, {name: found[name] for name in step.inputs})
        assert outcome.reused, f"{kind} is not in the store"
        found[kind] = outcome.reference


def seconds(work: Callable[[], object]) -> float:
    """Wall seconds of a call."""
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
    with (
        prefect_test_harness(server_startup_timeout=120),
        temporary_settings({PREFECT_LOGGING_LEVEL: "WARNING"}),
    ):
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
