"""The nightly flow: ingest new problems, train the promoted checkpoint on, promote if no worse."""

from dataclasses import dataclass
from typing import Annotated, Any

from prefect import State, flow
from prefect.logging import get_run_logger
from prefect.states import Completed
from pydantic import Field

from cotpipe.recipe.model import Recipe, Student
from cotpipe.report.gate import Margins, too_few
from cotpipe.runs.anchor import Anchor, anchor_of
from cotpipe.runs.held_out import count_held_out
from cotpipe.runs.log import RunLog
from cotpipe.runs.nights import INBOX, batches_of, new_files, night_recipe
from cotpipe.runs.promotion import (
    REGISTRY,
    ModelRegistry,
    Taken,
    read_registry,
    recorded_night,
)
from cotpipe.section import NumRepeats
from cotpipe.settings import Settings
from cotpipe.steps.runner import StepResult
from cotpipe.store.artifacts import Store, open_store
from cotpipe.store.leases import HeldLease, holder
from cotpipe.store.records import Reference
from flows.curriculum import chosen_recipe, run_name, run_step, run_steps
from tasks.nights import Arrival, decide, take_in_file, turn_of_the_night
from tasks.runs import recorded_run, run_suffix
from tasks.steps import prepare

_FORM = Recipe()
Margin = Annotated[float, Field(ge=0, le=1)]


@flow(name="nightly", flow_run_name=run_name, validate_parameters=True)
def nightly(
    start_from: str | None = None,
    history: NumRepeats = 3,
    accuracy_margin: Margin = 0.02,
    token_margin: Margin = 0.05,
    anchor: str | None = None,
    recipe: Recipe = _FORM,
) -> "State[Any]":
    """Train the promoted checkpoint further if the inbox has new problems; promote it if no worse.

    Args:
        start_from: A shipped recipe, a file in the worker's folder of recipes (COTPIPE_RECIPES), or
            an earlier run. It provides all form fields left at their defaults.
        history: A failure is persistent if the problem failed in this many latest minings (nights).
        accuracy_margin: Maximum loss of accuracy for a promotion (share of held-out problems).
        token_margin: Maximum growth of the mean answer length (share of the mean).
        anchor: A checkpoint (`store:KIND/FINGERPRINT`) or run that a candidate must keep to as well,
            by the same margins, so that small losses do not add up night by night. Default: the
            checkpoint that was promoted 30 days ago, or the first one.
        recipe: Everything that determines what is computed. Its own problems are replayed after the
            new ones.

    Returns:
        A state: `Promoted` or `Kept` with the reason, or `Skipped` if there is nothing new or
        another nightly run is in progress.
    """
    settings = Settings()
    store = open_store(settings)
    chosen = chosen_recipe(recipe, start_from, store)
    with turn_of_the_night(store, settings) as turn:
        if turn is None:
            return Completed(
                name="Skipped",
                message=f"another nightly run is in progress: {holder(store.storage, REGISTRY)}",
            )
        margins = Margins(accuracy_margin, token_margin, chosen.evaluation.max_new_tokens)
        return _night(store, chosen, _Terms(margins, history, anchor), turn)


@dataclass(frozen=True)
class _Terms:
    """What decides about a promotion, and about what is persistent."""

    margins: Margins
    history: int
    anchor: str | None  # as named by the user


def _night(store: Store, recipe: Recipe, terms: _Terms, turn: HeldLease) -> "State[Any]":
    registry = read_registry(store.storage)
    if night := recorded_night(registry, run_suffix()):  # it is retried after it was written down
        name = "Promoted" if night.promoted else "Kept"
        return Completed(name=name, message=night.why, data=night)
    files = new_files(store.storage, registry)
    if not files:
        return Completed(name="Skipped", message=f"nothing new in {store.storage.location(INBOX)}")
    anchor = anchor_of(registry, terms.anchor, store)
    with recorded_run(store, recipe) as log:  # until all is decided, `gc` keeps what it needs
        arrivals = [_taken_in(name, recipe, log) for name in files]
        taken = [arrival.taken for arrival in arrivals if arrival.taken]
        if not taken:
            reasons = "; ".join(arrival.left for arrival in arrivals)
            return Completed(name="Skipped", message=f"no valid new file: {reasons}")
        if anchor:
            log.need([anchor.checkpoint])
        tonight = _join(store, recipe, registry, taken, terms, log)
        results = run_steps(store, tonight, log)
        artifacts = {kind: result.reference for kind, result in results.items()}
        start = registry.promoted.checkpoint if registry.promoted else None
        other = "the promoted checkpoint" if start else "the student"
        compared = {other: artifacts["evaluation-base"]}
        if anchor:
            compared[anchor.what] = _evaluated(anchor, tonight, artifacts["lessons"], log)
        last, margins = tonight.checkpoints[-1], terms.margins
        verdict = decide(
            log.run.run_id, artifacts, last, taken, compared, margins, start, turn,
            return_state=True,
        )  # fmt: skip
        return Completed(name=verdict.name, message=verdict.message, data=verdict.result())


def _taken_in(name: str, recipe: Recipe, log: RunLog) -> Arrival:
    arrival: Arrival = take_in_file(name, recipe).result()
    if arrival.taken:
        log.need([arrival.taken.problems])
    return arrival


def _join(
    store: Store,
    recipe: Recipe,
    registry: ModelRegistry,
    taken: list[Taken],
    terms: _Terms,
    log: RunLog,
) -> Recipe:
    """Join all batches of problems; returns tonight's recipe, which trains on them."""
    own: StepResult = prepare("problems", recipe, {}).result()
    log.need([own.reference])
    batches, left_out = batches_of(own.reference, [*registry.taken, *taken])
    tonight = night_recipe(recipe, batches, registry, terms.history, left_out)
    joined = run_step("problems", tonight, {}, name="join batches").reference
    log.need([joined])
    if few := too_few(count_held_out(store, joined, tonight), terms.margins.accuracy):
        get_run_logger().warning("This night will promote nothing: %s", few)
    return tonight


def _evaluated(anchor: Anchor, tonight: Recipe, lessons: Reference, log: RunLog) -> Reference:
    """The anchor's answers to tonight's held-out problems."""
    student = Student(model=f"store:{anchor.checkpoint}")
    recipe = tonight.model_copy(update={"student": student})
    model = run_step("student", recipe, {}, name="anchor").reference
    log.need([model])
    inputs = {"student": model, "lessons": lessons}
    answers = run_step("evaluation-base", recipe, inputs, name="evaluation-anchor").reference
    log.need([answers])
    return answers
