"""The steps of the pipeline as Prefect tasks; reused steps show as `Cached`."""

import random
from collections.abc import Mapping
from functools import partial
from typing import Any

from prefect import State, Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.states import Completed

from cotpipe.errors import TransientError
from cotpipe.recipe.model import Recipe
from cotpipe.settings import Settings
from cotpipe.steps.curriculum import steps_of
from cotpipe.steps.runner import StepResult, StepRunner
from cotpipe.steps.step import Verb
from cotpipe.store.artifacts import open_store
from cotpipe.store.records import Reference
from tasks.gpus import gpu_slots
from tasks.progress import StepProgress
from tasks.shards import placed
from tasks.shown import show_in_prefect


def _waits(retries: int) -> list[float]:
    """Seconds before each retry: exponential backoff from 10, with a jitter of ±50 %."""
    return [10 * 2**number * random.uniform(0.5, 1.5) for number in range(retries)]


def _is_retryable(_: "Task[..., Any]", __: TaskRun, state: "State[Any]") -> bool:
    """Whether the failure is retryable: only transient errors are, user errors are not."""
    return isinstance(state.result(raise_on_failure=False), TransientError)


verb: Any = partial(
    task,
    task_run_name="{kind}",
    cache_policy=NO_CACHE,  # only the store decides what is reused
    retries=3,
    retry_delay_seconds=_waits,
    retry_condition_fn=_is_retryable,
)


def _run(
    kind: str, recipe: Recipe, artifacts: Mapping[str, Reference], refresh: bool = False
) -> "State[StepResult]":
    """Make or reuse the artifact `kind`."""
    step, settings = steps_of(recipe)[kind], Settings()
    inputs = {name: artifacts[name] for name in step.inputs}
    store = open_store(
        settings, check=False
    )  # checked by the flow; a lost connection may come back
    with StepProgress(kind) as progress, placed(settings, progress.note) as side_by_side:
        runner = StepRunner(store, settings, progress, side_by_side)
        slots = partial(gpu_slots, step.gpus(recipe, settings), settings, progress.note)
        outcome = runner.run(step, recipe, inputs, refresh, slots)
        counts = ", ".join(
            f"{value} {name.replace('_', ' ')}" for name, value in outcome.record.counts.items()
        )
        progress.finish(f"reused: {counts}" if outcome.reused else counts)
    show_in_prefect(step, outcome, store)
    result = StepResult(
        reference=outcome.reference, reused=outcome.reused, counts=outcome.record.counts
    )
    name = "Cached" if outcome.reused else "Completed"
    return Completed(name=name, message=f"{outcome.reference}: {counts}", data=result)


prepare = verb(name="prepare")(_run)
"""Read problems, fetch the student, query the teacher, plan lessons, build examples."""
train = verb(name="train")(_run)
"""Train one stage in a subprocess."""
mine = verb(name="mine")(_run)
"""Mine the problems that a checkpoint persistently fails."""
evaluate = verb(name="evaluate")(_run)
"""Evaluate one checkpoint on the held-out problems."""
report = verb(name="report")(_run)
"""Write the report on all checkpoints."""

TASKS: dict[Verb, Any] = {
    "prepare": prepare, "train": train, "mine": mine, "evaluate": evaluate, "report": report,
}  # fmt: skip
"""The task that runs a step, by the step's verb."""
