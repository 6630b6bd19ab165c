"""Tasks of a nightly run beyond the curriculum: ingesting files, and judging the candidate."""

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from prefect import State
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed
from pydantic import BaseModel, ConfigDict

from cotpipe.data.problems.stored import CORRECTED
from cotpipe.errors import UserError
from cotpipe.recipe.model import Recipe
from cotpipe.report.gate import Margins, Verdict, all_of, judge
from cotpipe.report.markdown import escape
from cotpipe.report.summary import read_evaluations
from cotpipe.runs.nights import take_in
from cotpipe.runs.promotion import REGISTRY, ModelRegistry, Night, Taken, write_night
from cotpipe.settings import Settings
from cotpipe.steps.mine import FAILURES
from cotpipe.steps.runner import StepRunner
from cotpipe.store.artifacts import Store, open_store
from cotpipe.store.leases import HeldLease, lease_unless_alive
from cotpipe.store.records import Reference
from tasks.progress import StepProgress
from tasks.steps import verb


def turn_of_the_night(store: Store, settings: Settings) -> AbstractContextManager[HeldLease | None]:
    """Hold the lease of the model registry; None if another nightly run holds it and is alive."""
    return lease_unless_alive(store.storage, REGISTRY, settings.lease_seconds)


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
    compared: dict[str, Reference],
    margins: Margins,
    start: Reference | None,
    turn: HeldLease,
) -> "State[Night]":
    """Promote the candidate if it is not inferior, and record the nightly run, atomically.

    Args:
        run_id: Id of the nightly run.
        artifacts: Its artifacts, by kind.
        last: Kind of the candidate, the checkpoint of the last stage.
        taken: The files that the run ingested.
        compared: The evaluations of the checkpoints to compare with, by what these are.
        margins: What the candidate may lose at most.
        start: The checkpoint that was promoted when the run began.
        turn: The lease of the model registry; a run that lost it writes nothing.
    """
    store = open_store(Settings(), check=False)
    candidate = artifacts[last]
    own = artifacts[f"evaluation-{last}"]
    files = {what: _evaluations(store, one) for what, one in {**compared, last: own}.items()}
    rows = read_evaluations(files)
    verdict = all_of([_against(what, judge(rows[what], rows[last], margins)) for what in compared])
    night = Night(
        run_id=run_id,
        mining=artifacts.get(FAILURES),
        candidate=candidate,
        promoted=verdict.promote,
        why=verdict.why,
    )
    turn.confirm()
    registry = write_night(store.storage, night, taken, start)
    problems = store.record(artifacts["problems"])
    corrected = problems.counts.get(CORRECTED, 0) if problems else 0  # of all batches
    name = "Promoted" if verdict.promote else "Kept"
    create_markdown_artifact(
        describe(name, night, registry, taken, corrected),
        key="night",
        description="Outcome of the nightly run",
    )
    return Completed(name=name, message=verdict.why, data=night)


decide = verb(name="decide", task_run_name="decide")(_decide)
"""Promote the candidate, or keep the promoted checkpoint."""


def _against(what: str, verdict: Verdict) -> Verdict:
    return replace(verdict, why=f"against {what}: {verdict.why}")


def _evaluations(store: Store, reference: Reference) -> Any:
    return store.path(store.require(reference), "evaluations.parquet")


def describe(
    name: str, night: Night, registry: ModelRegistry, taken: list[Taken], corrected: int
) -> str:
    """The outcome of a nightly run, in Markdown.

    Args:
        name: The name of its state.
        night: The nightly run.
        registry: The model registry after it.
        taken: The files that it ingested.
        corrected: How many answers newer rows correct, in all batches.
    """
    promoted = registry.promoted
    return "\n".join(
        [
            f"**{name}**: candidate `{night.candidate}`: {escape(night.why)}",
            "",
            f"New files: {', '.join(escape(file.name) for file in taken) or 'none'}",
            *(
                [f"\nAnswers corrected by newer rows, in all files so far: {corrected}"]
                if corrected
                else []
            ),
            "",
            f"Currently promoted: `{promoted.checkpoint if promoted else 'nothing: the recipe’s student is used'}`",
            "",
            "| night | candidate | promoted | why |",
            "| --- | --- | --- | --- |",
            *map(_row, registry.nights[-7:]),
        ]
    )


def _row(night: Night) -> str:
    promoted = "yes" if night.promoted else "no"
    return (
        f"| {night.run_id} | {night.candidate.fingerprint[:8]} | {promoted} | {escape(night.why)} |"
    )
