"""The nightly flow: ingest new problems, train the promoted checkpoint on, promote if no worse."""

from typing import Annotated, Any

from prefect import State, flow
from prefect.states import Completed
from pydantic import Field, PositiveInt

from cotpipe.recipe.model import Recipe
from cotpipe.runs.nights import INBOX, new_files, night_recipe
from cotpipe.runs.promotion import REGISTRY, read_registry, recorded_night
from cotpipe.settings import Settings
from cotpipe.steps.runner import StepResult
from cotpipe.store.artifacts import Store, open_store
from cotpipe.store.leases import holder
from flows.curriculum import chosen_recipe, run_name, run_steps
from tasks.nights import Arrival, decide, take_in_file, turn_of_the_night
from tasks.runs import run_suffix
from tasks.steps import prepare

_FORM = Recipe()
Margin = Annotated[float, Field(ge=0, le=1)]


@flow(name="nightly", flow_run_name=run_name, validate_parameters=True)
def nightly(
    start_from: str | None = None,
    history: PositiveInt = 3,
    accuracy_margin: Margin = 0.02,
    token_margin: Margin = 0.05,
    recipe: Recipe = _FORM,
) -> "State[Any]":
    """Train the promoted checkpoint further if the inbox has new problems; promote it if no worse.

    Args:
        start_from: A shipped recipe, a YAML file on the worker, or an earlier run. It provides all
            form fields left at their defaults.
        history: A failure is persistent if the problem failed in this many latest minings (nights).
        accuracy_margin: Maximum loss of accuracy for a promotion (share of held-out problems).
        token_margin: Maximum growth of the mean answer length (share of the mean).
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
        return _night(store, chosen, history, accuracy_margin, token_margin)


def _night(
    store: Store, recipe: Recipe, history: int, accuracy_margin: float, token_margin: float
) -> "State[Any]":
    registry = read_registry(store.storage)
    if night := recorded_night(registry, run_suffix()):  # it is retried after it was written down
        name = "Promoted" if night.promoted else "Kept"
        return Completed(name=name, message=night.why, data=night)
    files = new_files(store.storage, registry)
    if not files:
        return Completed(name="Skipped", message=f"nothing new in {store.storage.location(INBOX)}")
    arrivals: list[Arrival] = [take_in_file(name, recipe).result() for name in files]
    taken = [arrival.taken for arrival in arrivals if arrival.taken]
    if not taken:
        reasons = "; ".join(arrival.left for arrival in arrivals)
        return Completed(name="Skipped", message=f"no valid new file: {reasons}")
    own: StepResult = prepare("problems", recipe, {}).result()
    batches = [own.reference, *(file.problems for file in (*registry.taken, *taken))]
    tonight = night_recipe(recipe, list(dict.fromkeys(batches)), registry, history)
    run_id, results = run_steps(store, tonight)
    artifacts = {kind: result.reference for kind, result in results.items()}
    last = tonight.checkpoints[-1]
    margins = {"accuracy_margin": accuracy_margin, "token_margin": token_margin}
    verdict = decide(run_id, artifacts, last, taken, **margins, return_state=True)
    return Completed(name=verdict.name, message=verdict.message, data=verdict.result())
