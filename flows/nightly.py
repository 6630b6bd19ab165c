"""The nightly flow: take new problems in, train on from the promoted checkpoint, promote what is no worse."""

from typing import Annotated, Any

from prefect import State, flow
from prefect.states import Completed
from pydantic import Field, PositiveInt

from cotpipe.config import Recipe
from cotpipe.leases import holder
from cotpipe.nights import INBOX, new_files, night_recipe
from cotpipe.promotion import MODELS, Taken, read_models
from cotpipe.records import Reference
from cotpipe.settings import Settings
from cotpipe.store import Store, open_store
from flows.curriculum import chosen_recipe, run_name, run_steps
from tasks.nights import decide, take_in_file, turn_of_the_night
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
    """Train on from the promoted checkpoint if the inbox has new problems; its own state says what came of it.

    Args:
        start_from: A shipped recipe, a YAML file on the worker, or an earlier run. Fields of the form that are left at
            their defaults are taken from there.
        history: A failure is persistent if the student was wrong in the last so many minings (nights).
        accuracy_margin: The most accuracy that a promoted checkpoint may lose (share of the held-out problems).
        token_margin: The most by which its answers may grow longer (share of their mean length).
        recipe: Everything that decides what is computed. Its problems are replayed after the new ones.

    Returns:
        A state: `Promoted`, `Kept` (with the reason), or `Skipped` where there was nothing new, or no turn.
    """
    settings = Settings()
    store = open_store(settings)
    chosen = chosen_recipe(recipe, start_from, store)
    with turn_of_the_night(store, settings) as turn:
        if turn is None:
            return Completed(name="Skipped", message=f"another night is under way: {holder(store.storage, MODELS)}")
        return _night(store, chosen, history, accuracy_margin, token_margin)


def _night(store: Store, recipe: Recipe, history: int, accuracy_margin: float, token_margin: float) -> "State[Any]":
    models = read_models(store.storage)
    files = new_files(store.storage, models)
    if not files:
        return Completed(name="Skipped", message=f"nothing new in {store.storage.location(INBOX)}")
    came = [take_in_file(name, recipe).result() for name in files]
    taken = [Taken.model_validate(one["taken"]) for one in came if "taken" in one]
    if not taken:
        return Completed(name="Skipped", message=f"no new file is whole: {'; '.join(one['left'] for one in came)}")
    own = Reference.model_validate(prepare("problems", recipe, {}).result()["reference"])
    batches = [own, *(file.problems for file in (*models.taken, *taken))]
    tonight = night_recipe(recipe, list(dict.fromkeys(batches)), models, history)
    run_id, results = run_steps(store, tonight)
    artifacts = {kind: Reference.model_validate(result["reference"]) for kind, result in results.items()}
    verdict = decide(run_id, artifacts, taken, accuracy_margin, token_margin, return_state=True)
    return Completed(name=verdict.name, message=verdict.message, data=verdict.result())
