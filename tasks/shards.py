"""Shards as mapped Prefect tasks: on this machine with bounded concurrency, or on a Ray cluster."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from prefect import State, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from cotpipe.settings import Settings
from cotpipe.steps.runner import Job, Outcome


class _Threads(ThreadPoolTaskRunner[Any]):
    """Prefect's thread pool; on Ctrl-C it does not wait for shards, which may take an hour."""

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is KeyboardInterrupt and self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None
        super().__exit__(kind, error, traceback)


@task(name="generate", task_run_name="shard-{number}", cache_policy=NO_CACHE)
def generate(number: int, make: Callable[[], Outcome]) -> "State[Outcome]":
    """Make or reuse one shard; `make` is a `partial`, into which Prefect does not look."""
    outcome = make()
    name = "Cached" if outcome.reused else "Completed"
    return Completed(name=name, message=str(outcome.reference), data=outcome)


def side_by_side(jobs: Sequence[Callable[[], Outcome]]) -> list[Outcome]:
    """Run the jobs of a step's shards as tasks in threads; reused shards show as `Cached`.

    All shards run before the first failure is raised, so that successful ones are kept.
    """
    made = in_threads(dict(enumerate(jobs)))
    return [made[number] for number in range(len(jobs))]


def in_threads(jobs: "dict[int, Callable[[], Outcome]]") -> dict[int, Outcome]:
    """Like `side_by_side`, for some of the shards, by their numbers."""
    runner = _Threads(max_workers=Settings().shards_at_once)
    with runner:
        makes = [partial(job) for job in jobs.values()]
        futures = runner.map(generate, {"number": list(jobs), "make": makes})
        futures.wait()
        outcomes: Any = futures.result()  # Prefect annotates it as futures of futures
    return dict(zip(jobs, outcomes, strict=True))


@contextmanager
def placed(
    settings: Settings, note: Callable[[str], None]
) -> Iterator[Callable[[Sequence[Job]], list[Outcome]]]:
    """What runs a step's shards, for as long as the step takes.

    Args:
        settings: With the address of a Ray cluster, shards go there.
        note: Called with events on the cluster.
    """
    if not settings.ray_address:
        yield side_by_side
        return
    from tasks.cluster import Cluster

    with Cluster(settings, note) as cluster:
        yield cluster.side_by_side
