"""Shards as mapped Prefect tasks: side by side, at most a set number of them at a time."""

from collections.abc import Callable, Sequence
from typing import Any

from prefect import State, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from cotpipe.settings import Settings
from cotpipe.steps.step import Outcome


def side_by_side(jobs: Sequence[Callable[[], Outcome]]) -> list[Outcome]:
    """Run the jobs of a step's shards as tasks; those that the store has show as `Cached`.

    All are tried before the first failure is raised, so that what can be finished is kept.
    """

    @task(name="generate", task_run_name="shard-{number}", cache_policy=NO_CACHE)
    def generate(number: int) -> "State[Outcome]":
        outcome = jobs[number]()
        name = "Cached" if outcome.reused else "Completed"
        return Completed(name=name, message=str(outcome.reference), data=outcome)

    runner: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=Settings().shards_at_once)
    with runner:
        futures = runner.map(generate, {"number": list(range(len(jobs)))})
        futures.wait()
        outcomes: Any = futures.result()  # Prefect types it as futures of futures
    return list(outcomes)
