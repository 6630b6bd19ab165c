"""The evaluation step: a checkpoint answers the held-out questions greedily."""

from functools import partial

from cotpipe.data.rows import Answered, write_rows
from cotpipe.engines.base import Sampling
from cotpipe.errors import UserError
from cotpipe.recipe.model import Recipe
from cotpipe.steps.ask import ask, gpus_to_ask
from cotpipe.steps.lessons import read_lessons
from cotpipe.steps.step import Step, Work


def step(checkpoint: str) -> Step:
    """The evaluation step of `base` (the student before training) or of a stage's checkpoint."""
    model = "student" if checkpoint == "base" else checkpoint
    return Step(
        kind=f"evaluation-{checkpoint}",
        version=2,
        inputs=(model, "lessons"),
        fields=lambda recipe: recipe.fields("evaluation", "problems.answers"),
        run=partial(evaluate, checkpoint=model),
        verb="evaluate",
        gpus=gpus_to_ask,
    )


def evaluate(work: Work, checkpoint: str) -> dict[str, int]:
    """Write `evaluations.parquet`: the graded answers of the checkpoint.

    A question that is too long for it counts as answered wrong: every checkpoint faces the same.
    Raises `UserError` if the held-out split is empty.
    """
    section = work.recipe.evaluation
    held_out = list(read_lessons(work.input("lessons", "lessons.parquet"), section.split))
    lessons = held_out[: section.max_problems]
    if not lessons:
        raise nothing_held_out(work.recipe)
    asked = ask(work, checkpoint, lessons, greedy(work.recipe))
    answered = asked.answered
    write_rows(work.output / "evaluations.parquet", Answered, answered)
    counts = {"problems": len(answered), "correct": sum(row.correct for row in answered)}
    return counts | ({"prompts_too_long": len(asked.too_long)} if asked.too_long else {})


def greedy(recipe: Recipe) -> Sampling:
    """How the answers of an evaluation are generated."""
    return Sampling(
        num_samples=1, temperature=0.0, max_new_tokens=recipe.evaluation.max_new_tokens, seed=0
    )


def nothing_held_out(recipe: Recipe) -> UserError:
    """The error of a recipe whose held-out split has no problem."""
    split = recipe.evaluation.split
    return UserError(
        f"evaluation.split: the split {split!r} is empty; raise problems.splits.{split}"
    )
