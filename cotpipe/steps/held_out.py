"""The held-out problems of a recipe, straight from its problems: no teacher is needed for them."""

from pathlib import Path

from cotpipe.data.rows import Lesson, Problem, read_rows
from cotpipe.data.splits import position_of, split_at
from cotpipe.rationale.format import parse_steps
from cotpipe.recipe.model import Recipe
from cotpipe.steps.evaluate import nothing_held_out


def held_out_lessons(problems: Path, recipe: Recipe) -> list[Lesson]:
    """What the recipe's evaluation asks, in its order, as the step `lessons` has it.

    The teacher's rationale is the problem's first reference rationale, if it has one: only its steps
    are there, not their graph.

    Args:
        problems: The file `problems.parquet`.
        recipe: The recipe, with the splits.

    Raises `UserError` if the split is empty.
    """
    shares, section = recipe.problems.splits.by_name(), recipe.evaluation
    found: list[tuple[tuple[int, float, str], Problem]] = []
    for problem in read_rows(problems, Problem):
        position = position_of(problem.problem_id)
        if (problem.split or split_at(position, shares)) == section.split:
            found.append(((-problem.batch, position, problem.problem_id), problem))
    found.sort(key=lambda one: one[0])
    if not found:
        raise nothing_held_out(recipe)
    return [
        Lesson(
            problem_id=problem.problem_id,
            split=section.split,
            position=position,
            question=problem.question,
            answer=problem.answer,
            teacher_steps=parse_steps(problem.rationales[0], None).steps
            if problem.rationales
            else [],
            teacher_words=0,
            uses=[],
            distance=[],
            critical=[],
        )
        for (_, position, _), problem in found[: section.max_problems]
    ]
