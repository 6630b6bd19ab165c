"""Shards as mapped Prefect tasks, with bounded concurrency."""

from collections.abc import Callable, Sequence
from typing import Any

from prefect import State, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from cotpipe.settings import Settings
from cotpipe.steps.runner import Outcome


class _Threads(ThreadPoolTaskRunner[Any]):
    """Prefect's thread pool; on Ctrl-C it does not wait for shards, which may take an hour."""

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is KeyboardInterrupt and self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None
        super().__exit__(kind, error, traceback)


def side_by_side(jobs: Sequence[Callable[[], Outcome]]) -> list[Outcome]:
    """Run the jobs of a step's shards as tasks; reused shards show as `Cached`.

    All shards run before the first failure is raised, so that successful ones are kept.
    """

    @task(name="generate", task_run_name="shard-{number}", cache_policy=NO_CACHE)
    def generate(number: int) -> "State[Outcome]":
        outcome = jobs[number]()
        name = "Cached" if outcome.reused else "Completed"
        return Completed(name=name, message=str(outcome.reference), data=outcome)

    runner = _Threads(max_workers=Settings().shards_at_once)
    with runner:
        futures = runner.map(generate, {"number": list(range(len(jobs)))})
        futures.wait()
        outcomes: Any = futures.result()  # Prefect annotates it as futures of futures
    return list(outcomes)
