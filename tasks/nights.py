"""The tasks of a night beside the curriculum's: taking files in, and deciding on the candidate."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect import State
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed

from cotpipe.config import Recipe
from cotpipe.errors import UserError
from cotpipe.leases import Lease, try_lease, wait_for_life
from cotpipe.nights import take_in
from cotpipe.promotion import MODELS, Models, Night, Taken, judge, write_night
from cotpipe.records import Reference
from cotpipe.report import read_evaluations
from cotpipe.settings import Settings
from cotpipe.steps.step import StepRunner
from cotpipe.store import Store, open_store
from tasks.progress import StepProgress
from tasks.steps import verb


@contextmanager
def turn_of_the_night(store: Store, settings: Settings) -> Iterator[Lease | None]:
    """Hold the right to change what is promoted, or yield None: another night lives and holds it."""
    while True:
        with try_lease(store.storage, MODELS, settings.lease_seconds) as lease:
            if lease or wait_for_life(store.storage, MODELS):
                yield lease
                return


def _take_in(name: str, recipe: Recipe) -> "State[dict[str, Any]]":
    """Make one file of the inbox an artifact; one that is broken stays there for another night, and says why."""
    settings = Settings()
    with StepProgress(name) as progress:
        try:
            taken = take_in(StepRunner(open_store(settings, check=False), settings, progress), recipe, name)
        except UserError as error:
            progress.finish(f"left in the inbox: {error}")
            return Completed(name="Left", message=str(error), data={"left": str(error)})
        progress.finish(f"taken in as {taken.problems}")
    return Completed(message=str(taken.problems), data={"taken": taken.model_dump()})


take_in_file = verb(name="take in", task_run_name="take in {name}")(_take_in)
"""Take in one file of the inbox."""


def _decide(
    run_id: str,
    artifacts: dict[str, Reference],
    taken: list[Taken],
    accuracy_margin: float,
    token_margin: float,
) -> "State[dict[str, Any]]":
    """Promote the night's candidate if it is shown to be no worse, and write down the night, both at once."""
    store = open_store(Settings(), check=False)
    candidate = artifacts["stage3"]
    rows = read_evaluations({name: _evaluations(store, artifacts[f"evaluation-{name}"]) for name in ("base", "stage3")})
    verdict = judge(rows, accuracy_margin, token_margin)
    night = Night(
        run_id=run_id, mining=artifacts["failures"], candidate=candidate, promoted=verdict.promote, why=verdict.why
    )
    models = write_night(store.storage, night, taken)
    name = "Promoted" if verdict.promote else "Kept"
    create_markdown_artifact(_describe(name, night, models, taken), key="night", description="What the night came to")
    return Completed(name=name, message=verdict.why, data=night.model_dump())


decide = verb(name="decide", task_run_name="decide")(_decide)
"""Promote the night's candidate, or keep the checkpoint before it."""


def _evaluations(store: Store, reference: Reference) -> Any:
    record = store.find(reference)
    assert record, "the flow has just made it"
    return store.path(record, "evaluations.parquet")


def _describe(name: str, night: Night, models: Models, taken: list[Taken]) -> str:
    promoted = models.promoted
    return "\n".join(
        [
            f"**{name}**: the candidate `{night.candidate}`: {night.why}",
            "",
            f"New files: {', '.join(file.name for file in taken) or 'none'}",
            "",
            f"Promoted is now: `{promoted.checkpoint if promoted else 'nothing, the recipe’s own student counts'}`",
            "",
            "| night | candidate | promoted | why |",
            "| --- | --- | --- | --- |",
            *(
                f"| {one.run_id} | {one.candidate.fingerprint[:8]} | {'yes' if one.promoted else 'no'} | {one.why} |"
                for one in models.nights[-7:]
            ),
        ]
    )
