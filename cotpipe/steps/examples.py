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
    hinted_prompt,
    question_prompt,
    reconstruction_prompt,
    rewriting_prompt,
)
from cotpipe.recipe.examples import (
    Completion,
    Examples,
    Masks,
    OwnAnswers,
    Reconstruction,
    Rewriting,
)
from cotpipe.recipe.model import Recipe
from cotpipe.recipe.stages import Stage
from cotpipe.steps.attempts import Attempted, read_attempts
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

    inputs = ["lessons"]
    if stage.examples.problems == "failures":
        inputs.append(mined)
    if stage.examples.pass_rates:
        inputs.append(f"{stage.name}-attempts")
    return Step(
        kind=f"{stage.name}-examples",
        version=1,
        inputs=tuple(inputs),
        fields=fields,
        run=partial(_write_examples, stage=stage, mined=mined),
    )


def _write_examples(work: Work, stage: Stage, mined: str) -> dict[str, int]:
    """Write `examples.parquet`; raises `RunError` if it would contain a held-out problem."""
    with bounded_database(work.output) as database:
        lessons = TaughtLessons(database, work, stage, mined)
        seed, instruction = work.recipe.seed, work.recipe.instruction
        if not stage.examples.pass_rates:
            rows = examples(lessons, stage, seed, instruction)
        elif isinstance(stage.examples, OwnAnswers):
            rows = own_answers(lessons, stage, read_attempts(work, stage), seed, instruction)
        else:
            rows = ladders(lessons, stage, read_attempts(work, stage), seed, instruction)
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
            yield _example(lesson, epoch, messages, masked)


def ladders(
    lessons: Lessons, stage: Stage, attempted: Attempted, seed: int, instruction: str = INSTRUCTION
) -> Iterator[Example]:
    """The examples of a stage that chooses its prompts by pass rate: several per problem.

    Problems come from the easiest to the hardest; each from the bare question to the most help.

    Args:
        lessons: The lessons, each with steps.
        stage: The stage.
        attempted: The pass rates of its initial checkpoint.
        seed: The seed of the recipe.
        instruction: The instruction before every question.
    """
    section = stage.examples
    assert section.pass_rates
    order = list(range(len(lessons)))
    named_random(seed, f"{stage.name} order", 0).shuffle(order)
    rates = [attempted.pass_rates[lesson.problem_id] for lesson in lessons.in_order(order)]
    easiest_first = sorted(range(len(order)), key=lambda place: -rates[place])
    for lesson in lessons.in_order([order[place] for place in easiest_first]):
        rng = named_random(seed, f"{stage.name} prompt", lesson.problem_id, 0)
        before = -1
        for rung in range(section.pass_rates.rungs):
            help_shown = rung / max(section.pass_rates.rungs - 1, 1)
            messages, masked = _helped(section, instruction, lesson, help_shown, rng)
            if len(masked) == before:
                continue  # a short rationale has fewer degrees of help
            before = len(masked)
            rate = attempted.pass_rates[lesson.problem_id]
            yield _example(lesson, 0, messages, masked, pass_rate=rate)


def own_answers(
    lessons: Lessons, stage: Stage, attempted: Attempted, seed: int, instruction: str = INSTRUCTION
) -> Iterator[Example]:
    """The bare questions with the student's own shortest right answers, where it has one.

    Args:
        lessons: The lessons, each with steps.
        stage: The stage.
        attempted: The answers of its initial checkpoint.
        seed: The seed of the recipe.
        instruction: The instruction before every question.
    """
    for epoch in range(stage.examples.num_epochs):
        order = list(range(len(lessons)))
        named_random(seed, f"{stage.name} order", epoch).shuffle(order)
        for lesson in lessons.in_order(order):
            if answer := attempted.own_answers.get(lesson.problem_id):
                yield bare_example(lesson, instruction, epoch, target=answer)


def bare_example(
    lesson: Lesson, instruction: str, epoch: int = 0, target: str | None = None
) -> Example:
    """The bare question of a lesson, with its rationale or another target.

    Args:
        lesson: The lesson, perhaps without a rationale.
        instruction: The instruction before the question.
        epoch: The epoch.
        target: The target; default: the teacher's rationale.
    """
    prompt = question_prompt(lesson.question, instruction)
    return _example(lesson, epoch, prompt, list(range(len(lesson.teacher_steps))), target)


def _example(
    lesson: Lesson,
    epoch: int,
    prompt: list[Message],
    masked: list[int],
    target: str | None = None,
    pass_rate: float | None = None,
) -> Example:
    return Example(
        problem_id=lesson.problem_id,
        epoch=epoch,
        prompt=prompt,
        target=target or format_rationale(lesson.teacher_steps, lesson.answer),
        masked=masked,
        answer=lesson.answer,
        teacher_steps=lesson.teacher_steps,
        teacher_words=lesson.teacher_words,
        pass_rate=pass_rate,
    )


def _helped(
    section: Examples, instruction: str, lesson: Lesson, help_shown: float, rng: random.Random
) -> tuple[list[Message], list[int]]:
    """A prompt with some help, from none (0: the bare question) to the most that the task gives (1).

    Completion hides from all steps down to the recipe's `masks.first_share`. Rewriting shows the
    first steps, at the end the whole rationale.
    """
    steps = lesson.teacher_steps
    if isinstance(section, Completion):
        most = num_masked_at(section.masks.first_share, len(steps))
        num_masked = round(_between(len(steps), most, help_shown))
        shown, masked = _hide(lesson, section.masks.kind, num_masked, rng)
        if len(masked) == len(steps):
            return question_prompt(lesson.question, instruction), masked
        return completion_prompt(lesson.question, shown, instruction), masked
    num_shown = round(_between(0, len(steps), help_shown))
    masked = list(range(num_shown, len(steps)))
    if not masked:
        return rewriting_prompt(lesson.question, steps, lesson.answer, instruction), masked
    return hinted_prompt(lesson.question, steps, num_shown, instruction), masked


def _prompt_of(section: Examples, instruction: str) -> Prompt:
    match section:
        case Reconstruction():
            return partial(_reconstruction, section.masks, instruction)
        case Completion():
            return partial(_completion, section.masks, instruction)
        case Rewriting():
            return partial(_rewriting, section, instruction)
        case _:
            raise AssertionError(f"{section.task} has no prompts in order")


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
    return _hide(lesson, masks.kind, num_masked, rng)


def _hide(
    lesson: Lesson, kind: str, num_masked: int, rng: random.Random
) -> tuple[list[str | None], list[int]]:
    """The steps, with None for each hidden one, and the indices of the hidden steps."""
    steps = lesson.teacher_steps
    graph = RationaleGraph(lesson.uses, lesson.distance, lesson.critical)
    masked = (
        list(range(len(steps)))
        if num_masked == len(steps)
        else choose_masked(kind, len(steps), num_masked, rng, graph)
    )
    hidden = set(masked)
    return [None if index in hidden else step for index, step in enumerate(steps)], masked


def _between(first: float, last: float, progress: float) -> float:
    return first + (last - first) * progress
