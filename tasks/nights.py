"""Tasks of a nightly run beyond the curriculum: ingesting files, and judging the candidate."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect import State
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed
from pydantic import BaseModel, ConfigDict

from cotpipe.data.problems.stored import CORRECTED
from cotpipe.errors import UserError
from cotpipe.recipe.model import Recipe
from cotpipe.report.summary import read_evaluations
from cotpipe.runs.nights import take_in
from cotpipe.runs.promotion import REGISTRY, ModelRegistry, Night, Taken, judge, write_night
from cotpipe.settings import Settings
from cotpipe.steps.mine import FAILURES
from cotpipe.steps.runner import StepRunner
from cotpipe.store.artifacts import Store, open_store
from cotpipe.store.leases import Lease, try_lease, wait_for_life
from cotpipe.store.records import Reference
from tasks.progress import StepProgress
from tasks.steps import verb


@contextmanager
def turn_of_the_night(store: Store, settings: Settings) -> Iterator[Lease | None]:
    """Hold the lease of the model registry; yields None if another nightly run holds it."""
    while True:
        with try_lease(store.storage, REGISTRY, settings.lease_seconds) as lease:
            if lease or wait_for_life(store.storage, REGISTRY):
                yield lease
                return


class Arrival(BaseModel):
    """The outcome for a file of the inbox: ingested, or left there with the reason."""

    model_config = ConfigDict(frozen=True)

    taken: Taken | None = None
    left: str = ""


def _take_in(name: str, recipe: Recipe) -> "State[Arrival]":
    """Ingest one file of the inbox; an invalid one is left for a later nightly run."""
    settings = Settings()
    with StepProgress(name) as progress:
        runner = StepRunner(open_store(settings, check=False), settings, progress)
        try:
            taken = take_in(runner, recipe, name)
        except UserError as error:
            progress.finish(f"left in the inbox: {error}")
            return Completed(name="Left", message=str(error), data=Arrival(left=str(error)))
        progress.finish(f"taken in as {taken.problems}")
    return Completed(message=str(taken.problems), data=Arrival(taken=taken))


take_in_file = verb(name="take in", task_run_name="take in {name}")(_take_in)
"""Ingest one file of the inbox."""


def _decide(
    run_id: str,
    artifacts: dict[str, Reference],
    last: str,
    taken: list[Taken],
    accuracy_margin: float,
    token_margin: float,
) -> "State[Night]":
    """Promote the candidate if it is not inferior, and record the nightly run, atomically.

    Args:
        run_id: Id of the nightly run.
        artifacts: Its artifacts, by kind.
        last: Kind of the candidate, the checkpoint of the last stage.
        taken: The files that the run ingested.
        accuracy_margin: See `judge`.
        token_margin: See `judge`.
    """
    store = open_store(Settings(), check=False)
    candidate = artifacts[last]
    files = {name: _evaluations(store, artifacts[f"evaluation-{name}"]) for name in ("base", last)}
    rows = read_evaluations(files)
    verdict = judge(rows["base"], rows[last], accuracy_margin, token_margin)
    night = Night(
        run_id=run_id,
        mining=artifacts.get(FAILURES),
        candidate=candidate,
        promoted=verdict.promote,
        why=verdict.why,
    )
    registry = write_night(store.storage, night, taken)
    problems = store.record(artifacts["problems"])
    corrected = problems.counts.get(CORRECTED, 0) if problems else 0
    name = "Promoted" if verdict.promote else "Kept"
    create_markdown_artifact(
        _describe(name, night, registry, taken, corrected),
        key="night",
        description="Outcome of the nightly run",
    )
    return Completed(name=name, message=verdict.why, data=night)


decide = verb(name="decide", task_run_name="decide")(_decide)
"""Promote the candidate, or keep the promoted checkpoint."""


def _evaluations(store: Store, reference: Reference) -> Any:
    record = store.find(reference)
    assert record, "made earlier in this flow"
    return store.path(record, "evaluations.parquet")


def _describe(
    name: str, night: Night, registry: ModelRegistry, taken: list[Taken], corrected: int
) -> str:
    promoted = registry.promoted
    return "\n".join(
        [
            f"**{name}**: candidate `{night.candidate}`: {night.why}",
            "",
            f"New files: {', '.join(file.name for file in taken) or 'none'}",
            *([f"\nCorrected by newer rows: {corrected} answers"] if corrected else []),
            "",
            f"Currently promoted: `{promoted.checkpoint if promoted else 'nothing: the recipe’s student is used'}`",
            "",
            "| night | candidate | promoted | why |",
            "| --- | --- | --- | --- |",
            *(
                f"| {one.run_id} | {one.candidate.fingerprint[:8]} | {'yes' if one.promoted else 'no'} | {one.why} |"
                for one in registry.nights[-7:]
            ),
        ]
    )
