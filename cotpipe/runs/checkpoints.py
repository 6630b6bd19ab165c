"""Finding the model that a command names."""

from cotpipe.engines.served import Served, find_served, is_address
from cotpipe.errors import UserError
from cotpipe.recipe.model import Recipe, Student
from cotpipe.runs.promotion import read_registry
from cotpipe.steps import student
from cotpipe.steps.runner import StepRunner
from cotpipe.steps.student import STORE, folder_identity, stored_checkpoint
from cotpipe.store.artifacts import Store
from cotpipe.store.records import Record, Reference

PROMOTED = "promoted"
"""Names the promoted checkpoint."""
_WEIGHTS = "model/config.json"


def find_checkpoint(model: str, runner: StepRunner, recipe: Recipe) -> Reference | Served:
    """The artifact that contains `model/`, or the server, of a model.

    Args:
        model: What the recipe's `student.model` takes, `promoted`, or a server's address.
        runner: Saves a model that is not in the store yet as the student step does.
        recipe: The recipe; its student's revision counts for the same model.

    Raises `UserError` for a model that there is not.
    """
    if is_address(model):
        return find_served(model, runner.settings)
    if record := stored_model(model, runner.store):
        return record.reference
    section = student_named(model, recipe)
    return runner.run(student.STEP, recipe.model_copy(update={"student": section}), {}).reference


def is_stored(model: str) -> bool:
    """Whether a model is named by its place in the store."""
    return model == PROMOTED or model.startswith(STORE)


def stored_model(model: str, store: Store) -> Record | None:
    """The checkpoint in the store that `store:KIND/FINGERPRINT` or `promoted` names; else None.

    Raises `UserError` if it names one that the store does not have, or that has no model.
    """
    if model == PROMOTED:
        promotion = read_registry(store.storage).promoted
        if promotion is None:
            raise UserError("nothing is promoted yet; promote a run: cotpipe promote RUN")
        reference: Reference | None = promotion.checkpoint
    else:
        reference = stored_checkpoint(model, "MODEL")
    if reference is None:
        return None
    record = store.check(store.latest(reference))
    if record is None:
        raise UserError(
            f"MODEL: {reference} is not in the store {store.storage.address}, or is damaged; list "
            "what there is: cotpipe sql 'from artifacts'"
        )
    if not any(file.path == _WEIGHTS for file in record.files):
        raise UserError(
            f"MODEL: {reference} is no checkpoint: it has no {_WEIGHTS}; give the artifact of the "
            "student or of a stage"
        )
    return record


def student_named(model: str, recipe: Recipe) -> Student:
    """A model as the recipe's student, with the recipe's revision if it is the same one.

    Raises `UserError` if it is neither a model's directory nor a hub id.
    """
    if model == recipe.student.model:
        return recipe.student
    if not model.startswith("wheel:"):
        folder_identity(model, "MODEL")
    return Student(model=model)
