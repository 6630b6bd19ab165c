"""Training examples of the three stages: which steps a prompt shows, in which order, and what is hidden when.

All epochs of a stage stand in one table, in training order, so the trainer only has to read it from the top: each
epoch has its own order and its own masks, and a resumed stage sees the same rows as an undisturbed one. Lessons come
as an Arrow table of `rows.Lesson`, all of them with steps; in it a million take some hundred megabytes.
"""

import random
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from cotpipe import prompts
from cotpipe.config import Masks, Stage1, Stage2, Stage3, Training
from cotpipe.masks import choose_masked, num_masked_at, published_num_masked
from cotpipe.prompts import Message
from cotpipe.randomness import named_random
from cotpipe.rationale import format_rationale
from cotpipe.rows import Example, Lesson
from cotpipe.structure import StepGraph

_ROWS_AT_ONCE = 10_000


def stage1_examples(lessons: pa.Table, stage: Stage1, seed: int) -> Iterator[Example]:
    """Reconstruction: the steps shuffled, some masked; once all of them are masked, the bare question."""

    def prompt(lesson: Lesson, progress: float, rng: random.Random) -> tuple[list[Message], list[int]]:
        shown, masked = _mask(lesson, stage.masks, progress, rng)
        rng.shuffle(shown)
        if len(masked) == len(shown):
            return prompts.question_prompt(lesson.question), masked
        return prompts.reconstruction_prompt(lesson.question, shown), masked

    return _examples("stage1", lessons, stage, seed, prompt)


def stage2_examples(lessons: pa.Table, stage: Stage2, seed: int) -> Iterator[Example]:
    """Completion: the steps in order, some masked; once all of them are masked, the bare question."""

    def prompt(lesson: Lesson, progress: float, rng: random.Random) -> tuple[list[Message], list[int]]:
        shown, masked = _mask(lesson, stage.masks, progress, rng)
        if len(masked) == len(shown):
            return prompts.question_prompt(lesson.question), masked
        return prompts.completion_prompt(lesson.question, shown), masked

    return _examples("stage2", lessons, stage, seed, prompt)


def stage3_examples(lessons: pa.Table, stage: Stage3, seed: int) -> Iterator[Example]:
    """Rewriting: the teacher's rationale as a hint, in ever fewer of the prompts, at last the bare question."""

    def prompt(lesson: Lesson, progress: float, rng: random.Random) -> tuple[list[Message], list[int]]:
        if rng.random() < _between(stage.first_hint_share, stage.last_hint_share, progress):
            return prompts.rewriting_prompt(lesson.question, lesson.teacher_steps, lesson.answer), []
        return prompts.question_prompt(lesson.question), list(range(len(lesson.teacher_steps)))

    return _examples("stage3", lessons, stage, seed, prompt)


def _examples(
    purpose: str,
    lessons: pa.Table,
    stage: Training,
    seed: int,
    prompt: Callable[[Lesson, float, random.Random], tuple[list[Message], list[int]]],
) -> Iterator[Example]:
    taught = lessons.slice(0, stage.max_problems)
    total = len(taught) * stage.num_epochs
    for epoch in range(stage.num_epochs):
        order = list(range(len(taught)))
        named_random(seed, f"{purpose} order", epoch).shuffle(order)
        for index, lesson in enumerate(_take(taught, order)):
            progress = (epoch * len(taught) + index) / max(total - 1, 1)
            rng = named_random(seed, f"{purpose} prompt", lesson.problem_id, epoch)
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


def _take(lessons: pa.Table, order: Sequence[int]) -> Iterator[Lesson]:
    """The lessons in an order; the table is compact, and few of its rows at a time become objects."""
    for start in range(0, len(order), _ROWS_AT_ONCE):
        for row in lessons.take(order[start : start + _ROWS_AT_ONCE]).to_pylist():
            yield Lesson(**row)


def _mask(lesson: Lesson, masks: Masks, progress: float, rng: random.Random) -> tuple[list[str | None], list[int]]:
    """The steps with None in place of the hidden ones, and their indices; `progress` is 0 to 1 over the stage."""
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
    graph = StepGraph(lesson.uses, lesson.distance, lesson.critical)
    masked = (
        list(range(len(steps)))
        if num_masked == len(steps)
        else choose_masked(masks.kind, len(steps), num_masked, rng, graph)
    )
    hidden = set(masked)
    return [None if index in hidden else step for index, step in enumerate(steps)], masked


def _between(first: float, last: float, progress: float) -> float:
    return first + (last - first) * progress
