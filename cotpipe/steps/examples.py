"""The training examples of a stage: what each prompt shows, in what order, and what is masked.

One table holds all epochs of a stage in training order, so the trainer reads it from top to bottom.
Each epoch has its own order and masks, and a resumed stage sees the same rows as an uninterrupted
one. Lessons stream through in bounded memory.
"""

import random
from collections.abc import Callable, Iterator
from functools import partial

from cotpipe.data.rows import Example, Lesson, write_rows
from cotpipe.randomness import named_random
from cotpipe.rationale.format import format_rationale
from cotpipe.rationale.graph import RationaleGraph
from cotpipe.rationale.masks import choose_masked, num_masked_at, published_num_masked
from cotpipe.rationale.prompts import (
    INSTRUCTION,
    Message,
    completion_prompt,
    question_prompt,
    reconstruction_prompt,
    rewriting_prompt,
)
from cotpipe.recipe.examples import Completion, Masks, Reconstruction, Rewriting
from cotpipe.recipe.model import Recipe
from cotpipe.recipe.stages import Stage
from cotpipe.steps.spilling import bounded_database
from cotpipe.steps.step import Step, Work
from cotpipe.steps.taught import Lessons, TaughtLessons

Prompt = Callable[[Lesson, float, random.Random], tuple[list[Message], list[int]]]
"""Takes a lesson, the progress of the stage (0 to 1) and a random generator; returns the prompt and
the indices of the hidden steps."""


def step(stage: Stage, mined: str) -> Step:
    """The step that builds a stage's examples; `mined` is the kind of its failures artifact."""

    def fields(recipe: Recipe) -> dict[str, object]:
        own = {f"{stage.name}.{key}": value for key, value in stage.example_fields().items()}
        return recipe.fields("seed", "problems.answers") | own

    from_failures = stage.examples.problems == "failures"
    return Step(
        kind=f"{stage.name}-examples",
        version=1,
        inputs=("lessons", mined) if from_failures else ("lessons",),
        fields=fields,
        run=partial(_write_examples, stage=stage, mined=mined),
    )


def _write_examples(work: Work, stage: Stage, mined: str) -> dict[str, int]:
    """Write `examples.parquet`; raises `RunError` if it would contain a held-out problem."""
    with bounded_database(work.output) as database:
        lessons = TaughtLessons(database, work, stage, mined)
        rows = examples(lessons, stage, work.recipe.seed, work.recipe.instruction)
        return {"kept": write_rows(work.output / "examples.parquet", Example, rows)}


def examples(
    lessons: Lessons, stage: Stage, seed: int, instruction: str = INSTRUCTION
) -> Iterator[Example]:
    """The examples of a stage, in training order.

    Args:
        lessons: The lessons, each with steps.
        stage: The stage; its name and `examples` determine the examples.
        seed: The seed of the recipe.
        instruction: The instruction before every question.
    """
    section = stage.examples
    prompt = _prompt_of(section, instruction)
    total = len(lessons) * section.num_epochs
    for epoch in range(section.num_epochs):
        order = list(range(len(lessons)))
        named_random(seed, f"{stage.name} order", epoch).shuffle(order)
        for index, lesson in enumerate(lessons.in_order(order)):
            progress = (epoch * len(lessons) + index) / max(total - 1, 1)
            rng = named_random(seed, f"{stage.name} prompt", lesson.problem_id, epoch)
            messages, masked = prompt(lesson, progress, rng)
            yield Example(
                problem_id=lesson.problem_id,
                epoch=epoch,
                prompt=messages,
                target=format_rationale(lesson.teacher_steps, lesson.answer),
                masked=masked,
                answer=lesson.answer,
                teacher_steps=lesson.teacher_steps,
                teacher_words=lesson.teacher_words,
            )


def _prompt_of(section: Reconstruction | Completion | Rewriting, instruction: str) -> Prompt:
    match section:
        case Reconstruction():
            return partial(_reconstruction, section.masks, instruction)
        case Completion():
            return partial(_completion, section.masks, instruction)
        case Rewriting():
            return partial(_rewriting, section, instruction)


def _reconstruction(
    masks: Masks, instruction: str, lesson: Lesson, progress: float, rng: random.Random
) -> tuple[list[Message], list[int]]:
    """The steps shuffled, some masked; the bare question if all are masked."""
    shown, masked = _mask(lesson, masks, progress, rng)
    rng.shuffle(shown)
    if len(masked) == len(shown):
        return question_prompt(lesson.question, instruction), masked
    return reconstruction_prompt(lesson.question, shown, instruction), masked


def _completion(
    masks: Masks, instruction: str, lesson: Lesson, progress: float, rng: random.Random
) -> tuple[list[Message], list[int]]:
    """The steps in order, some masked; the bare question if all are masked."""
    shown, masked = _mask(lesson, masks, progress, rng)
    if len(masked) == len(shown):
        return question_prompt(lesson.question, instruction), masked
    return completion_prompt(lesson.question, shown, instruction), masked


def _rewriting(
    section: Rewriting, instruction: str, lesson: Lesson, progress: float, rng: random.Random
) -> tuple[list[Message], list[int]]:
    """The teacher's rationale as a hint, in a decreasing share of prompts, or the bare question."""
    steps = lesson.teacher_steps
    if rng.random() < _between(section.first_hint_share, section.last_hint_share, progress):
        return rewriting_prompt(lesson.question, steps, lesson.answer, instruction), []
    return question_prompt(lesson.question, instruction), list(range(len(steps)))


def _mask(
    lesson: Lesson, masks: Masks, progress: float, rng: random.Random
) -> tuple[list[str | None], list[int]]:
    """The steps, with None for each hidden one, and the indices of the hidden steps.

    `progress` is 0 at the start of the stage and 1 at the end.
    """
    steps = lesson.teacher_steps
    if rng.random() >= masks.probability:
        return list(steps), []
    match masks.amount:
        case "one":
            num_masked = min(1, len(steps) - 1)
        case "half":
            num_masked = published_num_masked(len(steps))
        case "share":
            share = _between(masks.first_share, masks.last_share, min(progress / masks.ramp, 1.0))
            num_masked = num_masked_at(share, len(steps))
    graph = RationaleGraph(lesson.uses, lesson.distance, lesson.critical)
    masked = (
        list(range(len(steps)))
        if num_masked == len(steps)
        else choose_masked(masks.kind, len(steps), num_masked, rng, graph)
    )
    hidden = set(masked)
    return [None if index in hidden else step for index, step in enumerate(steps)], masked


def _between(first: float, last: float, progress: float) -> float:
    return first + (last - first) * progress
