"""Putting one question to any model: the pipeline's bare question, answered greedily."""

from collections.abc import Callable
from typing import Any

from cotpipe.engines.base import Generated
from cotpipe.engines.served import find_served, is_address
from cotpipe.engines.streaming import LoadedModel, ServedModel, Show
from cotpipe.rationale.prompts import question_prompt
from cotpipe.recipe.model import Recipe, Student
from cotpipe.runs.checkpoints import is_stored, stored_model, student_named
from cotpipe.settings import Precision, Settings
from cotpipe.steps.student import open_student
from cotpipe.store.artifacts import open_store

Ask = Callable[[str, Show], Generated]
"""Answers a question; shows each piece of the answer as it comes."""


def asker(model: str, settings: Settings, recipe: Recipe) -> Ask:
    """What answers for a model; it is loaded, but for a server's, with the first question.

    Args:
        model: As `find_checkpoint` takes it.
        settings: The store for what lies there, and the key for servers.
        recipe: Its kind of answers is asked for, with `evaluation.max_new_tokens`.

    Raises `UserError` for a model that there is not.
    """
    if is_address(model):
        served = ServedModel(find_served(model, settings), settings)
        return _with(lambda: served, recipe)
    if is_stored(model):
        store = open_store(settings)
        record = stored_model(model, store)
        assert record
        section = Student(model=str(store.path(record, "model")))
    else:
        section = student_named(model, recipe)
    return _with(lambda: _load(model, section, settings.precision), recipe)


def _with(opened: Callable[[], LoadedModel | ServedModel], recipe: Recipe) -> Ask:
    def ask(question: str, show: Show) -> Generated:
        prompt = question_prompt(question, recipe.instruction)
        return opened().answer(prompt, recipe.evaluation.max_new_tokens, show)

    return ask


def _load(name: str, section: Student, precision: Precision) -> LoadedModel:
    import torch

    from cotpipe.hardware.devices import fast_dtype

    model: Any
    model, tokenizer = open_student(section)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return LoadedModel(name, model.to(device=device, dtype=fast_dtype(precision)).eval(), tokenizer)
