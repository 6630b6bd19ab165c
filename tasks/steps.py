"""The pipeline's steps as Prefect tasks: what the store has shows as `Cached`, the rest is done."""

from collections.abc import Mapping
from typing import Any

from prefect import State, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from cotpipe.config import Recipe
from cotpipe.curriculum import STEPS
from cotpipe.records import Reference
from cotpipe.settings import Settings
from cotpipe.steps.step import StepRunner
from cotpipe.store import open_store
from tasks.progress import StepProgress
from tasks.shards import side_by_side


def _run(
    kind: str, recipe: Recipe, artifacts: Mapping[str, Reference], refresh: bool = False
) -> "State[dict[str, Any]]":
    """Make or reuse the artifact `kind`; the result is its reference, whether it was reused, and its counts."""
    step, settings = STEPS[kind], Settings()
    inputs = {name: artifacts[name] for name in step.inputs}
    with StepProgress(kind) as progress:
        outcome = StepRunner(open_store(settings), settings, progress, side_by_side).run(step, recipe, inputs, refresh)
        counts = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in outcome.record.counts.items())
        progress.finish(f"reused: {counts}" if outcome.reused else counts)
    result = {"reference": outcome.reference.model_dump(), "reused": outcome.reused, "counts": outcome.record.counts}
    name = "Cached" if outcome.reused else "Completed"
    return Completed(name=name, message=f"{outcome.reference}: {counts}", data=result)


prepare = task(name="prepare", task_run_name="{kind}", cache_policy=NO_CACHE)(_run)
"""Read problems, fetch the student, ask the teacher, plan lessons, build examples."""
train = task(name="train", task_run_name="{kind}", cache_policy=NO_CACHE)(_run)
"""Train one stage in a process of its own."""
mine = task(name="mine", task_run_name="{kind}", cache_policy=NO_CACHE)(_run)
"""Find the problems that the stage-2 student persistently fails."""
evaluate = task(name="evaluate", task_run_name="{kind}", cache_policy=NO_CACHE)(_run)
"""Ask one checkpoint the held-out problems."""
report = task(name="report", task_run_name="{kind}", cache_policy=NO_CACHE)(_run)
"""Write the report over all checkpoints."""
