"""Overhead of a shard on a Ray cluster, beside that of one in a thread.

    python benchmarks/cluster.py [--shards N] [--nodes N]

The nodes are on this machine, with a CPU and an engine each that answers at once, so what is measured is
all else: sending the shard, its task, lease and commit, and fetching its outcome. What starts once per
step (connecting, processes, engines) is measured apart, by a step with as many shards as engines.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from prefect import flow
from prefect.settings import PREFECT_LOGGING_LEVEL, temporary_settings
from prefect.testing.utilities import prefect_test_harness

from cotpipe.engines.base import Model, Request, Sampling
from cotpipe.engines.source import Source
from cotpipe.progress import Silent
from cotpipe.recipe.model import Recipe
from cotpipe.settings import Settings
from cotpipe.steps.generate import SharedEngine, generate
from cotpipe.steps.runner import StepRunner
from cotpipe.steps.step import Step, Work
from cotpipe.store.artifacts import open_store
from tasks.shards import placed
from tests.helpers.ray_nodes import ray_nodes

ENGINE = """
from contextlib import contextmanager

from cotpipe.engines import Generated

class AtOnce:
    def generate(self, requests, sampling, progress):
        return [[Generated("Answer: 1", 3, False)] for _ in requests]

@contextmanager
def opened(model, settings):
    yield AtOnce()
"""


@flow
def shards(folder: str, number: int, name: str) -> float:
    """Seconds of a step with so many shards of one request each."""

    def run(work: Work) -> dict[str, int]:
        (work.output / "made").touch()  # an artifact has files
        source = Source(f"{folder}/engine.py:opened", Model("none"), work.settings)
        ids = [f"{name}-{index}" for index in range(number)]
        with SharedEngine(source, work.progress.note) as engine:
            made = generate(
                work, engine, {"for": name}, ids,
                lambda chosen: [Request(ids[index], []) for index in chosen], Sampling(1, 0.0, 1, 0),
            )  # fmt: skip
            return {"shards": sum(1 for _ in made)}

    settings = Settings()
    started = time.perf_counter()
    with placed(settings, lambda text: None) as side_by_side:
        runner = StepRunner(open_store(settings), settings, Silent(), side_by_side)
        outcome = runner.run(
            Step("problems", 1, (), lambda recipe: {"for": name}, run), Recipe(), {}
        )
    assert outcome.record.counts["shards"] == number
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=200)
    parser.add_argument("--nodes", type=int, default=2)
    arguments = parser.parse_args()
    count, engines = arguments.shards, arguments.nodes
    with (
        tempfile.TemporaryDirectory() as folder,
        prefect_test_harness(server_startup_timeout=120),
        temporary_settings({PREFECT_LOGGING_LEVEL: "WARNING"}),
    ):
        Path(folder, "engine.py").write_text(ENGINE)
        os.environ |= {
            "COTPIPE_STORE": f"{folder}/store", "COTPIPE_CACHE": f"{folder}/cache", "COTPIPE_SHARD_SIZE": "1",
            "COTPIPE_RAY_CPUS": "1",
        }  # fmt: skip
        in_threads = shards(folder, count, "threads")
        with ray_nodes() as nodes:
            for number in range(1, engines):
                nodes.join(f"node-{number}")
            os.environ["COTPIPE_RAY_ADDRESS"] = nodes.address
            moments = [(time.perf_counter(), nodes.processor_seconds() + time.process_time())]
            for number, name in ((engines, "start"), (count + engines, "cluster")):
                shards(folder, number, name)
                moments.append(
                    (time.perf_counter(), nodes.processor_seconds() + time.process_time())
                )
    (start, start_taken), (whole, whole_taken) = (
        (later[0] - earlier[0], later[1] - earlier[1]) for earlier, later in pairwise(moments)
    )
    result = {
        "thread_ms": 1000 * in_threads / count,
        "start_seconds": start,
        "ray_ms": 1000 * (whole - start) / count,
        "ray_ms_per_engine": 1000 * (whole - start) / count * engines,
        "ray_processor_ms": 1000 * (whole_taken - start_taken) / count,
    }
    sys.stdout.write(json.dumps({name: round(value, 2) for name, value in result.items()}) + "\n")


if __name__ == "__main__":
    main()
