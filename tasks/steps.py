"""The pipeline's steps as Prefect tasks: what the store has shows as `Cached`, the rest is done."""

import random
from collections.abc import Mapping
from functools import partial
from typing import Any

from prefect import State, Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.states import Completed

from cotpipe.config import Recipe
from cotpipe.curriculum import STEPS
from cotpipe.errors import TransientError
from cotpipe.records import Reference
from cotpipe.settings import Settings
from cotpipe.steps.step import StepRunner
from cotpipe.store import open_store
from tasks.gpus import gpu_slots, gpus_of
from tasks.progress import StepProgress
from tasks.shards import side_by_side
from tasks.shown import show_in_prefect


def _waits(retries: int) -> list[float]:
    """Seconds before each retry: 10, 20, 40 and so on, each between half and one and a half times that."""
    return [10 * 2**number * random.uniform(0.5, 1.5) for number in range(retries)]


def _may_heal(_: "Task[..., Any]", __: TaskRun, state: "State[Any]") -> bool:
    """Whether another try may meet a better world; a user's mistake stays one."""
    return isinstance(state.result(raise_on_failure=False), TransientError)


verb: Any = partial(
    task,
    task_run_name="{kind}",
    cache_policy=NO_CACHE,  # the store alone says what is done
    retries=3,
    retry_delay_seconds=_waits,
    retry_condition_fn=_may_heal,
)


def _run(
    kind: str, recipe: Recipe, artifacts: Mapping[str, Reference], refresh: bool = False
) -> "State[dict[str, Any]]":
    """Make or reuse the artifact `kind`; the result is its reference, whether it was reused, and its counts."""
    step, settings = STEPS[kind], Settings()
    inputs = {name: artifacts[name] for name in step.inputs}
    store = open_store(settings, check=False)  # the flow has checked; what is lost since then may come back
    with StepProgress(kind) as progress:
        runner = StepRunner(store, settings, progress, side_by_side)
        slots = partial(gpu_slots, gpus_of(kind, recipe, settings), settings, progress.note)
        outcome = runner.run(step, recipe, inputs, refresh, slots)
        counts = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in outcome.record.counts.items())
        progress.finish(f"reused: {counts}" if outcome.reused else counts)
    show_in_prefect(outcome, store)
    result = {"reference": outcome.reference.model_dump(), "reused": outcome.reused, "counts": outcome.record.counts}
    name = "Cached" if outcome.reused else "Completed"
    return Completed(name=name, message=f"{outcome.reference}: {counts}", data=result)


prepare = verb(name="prepare")(_run)
"""Read problems, fetch the student, ask the teacher, plan lessons, build examples."""
train = verb(name="train")(_run)
"""Train one stage in a process of its own."""
mine = verb(name="mine")(_run)
"""Find the problems that the stage-2 student persistently fails."""
evaluate = verb(name="evaluate")(_run)
"""Ask one checkpoint the held-out problems."""
report = verb(name="report")(_run)
"""Write the report over all checkpoints."""
