"""The teacher of a recipe: its identity, its sampling parameters, and what answers for it."""

from typing import Any

from cotpipe.engines.base import Model, Sampling
from cotpipe.engines.source import Source
from cotpipe.extensions import is_own, own_identity
from cotpipe.randomness import named_seed
from cotpipe.recipe.model import Recipe
from cotpipe.settings import Settings
from cotpipe.steps.step import Work
from cotpipe.steps.student import folder_identity


def teacher_identity(recipe: Recipe) -> dict[str, Any]:
    """Everything about the teacher that determines its answers; a local directory by its content.

    Excludes the engine, unless that is user code. Raises `UserError` if a directory holds no model.
    """
    teacher = recipe.teacher
    if teacher.engine == "reference":
        return {"engine": "reference"}
    assert teacher.model, "validated by the recipe"
    own = is_own(teacher.engine)
    is_named = own or teacher.engine == "openai"
    model = teacher.model if is_named else folder_identity(teacher.model, "teacher.model")
    return ({"engine": own_identity(teacher.engine)} if own else {}) | {
        "model": model,
        "revision": teacher.revision,
        "adapter": folder_identity(teacher.adapter, "teacher.adapter") if teacher.adapter else None,
        "chat_template": teacher.chat_template,
        "template_options": teacher.template_options,
    }


def source_of_teacher(work: Work) -> Source:
    """The teacher's engine with its model; the engine must not be `reference`."""
    teacher = work.recipe.teacher
    assert teacher.engine != "reference"
    assert teacher.model, "validated by the recipe"
    options = teacher.template_options
    model = Model(teacher.model, teacher.revision, teacher.adapter, teacher.chat_template, options)
    return Source(teacher.engine, model, work.settings)


def teacher_sampling(recipe: Recipe, num_samples: int, purpose: str, number: int) -> Sampling:
    """The sampling parameters of a round, with a seed of its own.

    Args:
        recipe: The recipe, which has the teacher's temperature and limits.
        num_samples: Answers per request.
        purpose: What is asked for, as a name of the seed.
        number: Number of the round, from 0.
    """
    teacher, seed = recipe.teacher, named_seed(recipe.seed, purpose, number)
    return Sampling(
        num_samples, teacher.temperature, teacher.max_new_tokens, seed, teacher.top_p, teacher.stop
    )


def gpus_of_teacher(recipe: Recipe, settings: Settings) -> int:
    """The number of GPUs that the teacher takes here; 0 if the dataset, a server or a cluster answers."""
    asked_here = recipe.teacher.engine not in ("reference", "openai") and not settings.ray_address
    return settings.tensor_parallel if asked_here else 0
