"""The pipeline: the steps of a recipe, in execution order."""

from collections.abc import Iterable, Mapping

from cotpipe.errors import UserError
from cotpipe.recipe.model import Recipe
from cotpipe.steps import (
    attempts,
    evaluate,
    examples,
    lessons,
    mine,
    problems,
    rationales,
    report,
    student,
    train,
)
from cotpipe.steps.step import Step


def steps_of(recipe: Recipe) -> dict[str, Step]:
    """All steps by the kind of their artifact; each comes after its inputs.

    >>> list(steps_of(Recipe()))[:5]
    ['problems', 'student', 'rationales', 'lessons', 'evaluation-base']
    """
    steps = [problems.STEP, student.STEP, rationales.STEP, lessons.STEP, evaluate.step("base")]
    mined: dict[str, str] = {}  # kind of the failures, by the checkpoint that is mined
    for stage in recipe.stages:
        start = recipe.start_of(stage)
        if stage.examples.problems == "failures" and start not in mined:
            mined[start] = f"{mine.FAILURES}-{start}" if mined else mine.FAILURES
            steps.append(mine.step(mined[start], start))
        failures = mined.get(start, mine.FAILURES)
        if stage.examples.pass_rates:
            steps.append(attempts.step(stage, start, failures))
        steps += [
            examples.step(stage, failures),
            train.step(stage, start),
            evaluate.step(stage.name),
        ]
    steps.append(report.step(recipe))
    found = {step.kind: step for step in steps}
    assert len(found) == len(steps), "the recipe refuses names of stages that clash"
    return found


def needed_for(kind: str, steps: Mapping[str, Step]) -> list[str]:
    """A step and all steps it depends on, in execution order.

    Raises `UserError` if there is no such step.

    >>> needed_for("lessons", steps_of(Recipe()))
    ['problems', 'rationales', 'lessons']
    """
    require_steps([kind], steps)

    def inputs_of(name: str) -> set[str]:
        return {name}.union(*(inputs_of(one) for one in steps[name].inputs))

    needed = inputs_of(kind)
    return [name for name in steps if name in needed]


def require_steps(kinds: Iterable[str], steps: Mapping[str, Step]) -> None:
    """Raise `UserError` for the first kind that is not a step."""
    if unknown := [kind for kind in kinds if kind not in steps]:
        raise UserError(f"no step is called {unknown[0]!r}; the steps are: {', '.join(steps)}")
