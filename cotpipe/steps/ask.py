"""Sampling and grading a checkpoint's answers to bare questions, for mining and evaluation."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

from cotpipe.data.rows import Answered, Lesson
from cotpipe.engines.base import Engine, Generated, Model, Request, Sampling
from cotpipe.engines.choice import open_engine
from cotpipe.rationale.answers import AnswerKind
from cotpipe.rationale.format import has_valid_format
from cotpipe.rationale.prompts import question_prompt
from cotpipe.recipe.model import Recipe
from cotpipe.settings import Settings
from cotpipe.steps.generate import SharedEngine, generate
from cotpipe.steps.step import Work


def ask(
    work: Work, checkpoint: str, lessons: Sequence[Lesson], sampling: Sampling
) -> list[Answered]:
    """The graded answers of a checkpoint, in the order of the lessons.

    Args:
        work: The work of the calling step.
        checkpoint: Kind of the input artifact that contains `model/`.
        lessons: The lessons whose questions are asked.
        sampling: Sampling parameters.
    """

    def opened() -> AbstractContextManager[Engine]:
        model = Model(str(work.input(checkpoint, "model")))
        return open_engine(work.settings.engine, model, work.settings, work.progress.note)

    answers, instruction = work.recipe.answers, work.recipe.instruction
    requests = [
        Request(lesson.problem_id, question_prompt(lesson.question, instruction))
        for lesson in lessons
    ]
    identity = {"checkpoint": str(work.inputs[checkpoint])}
    with SharedEngine(opened) as engine:
        generated = generate(work, engine, identity, requests, sampling)
    return [
        _verdict(lesson, number, sample, answers)
        for lesson, samples in zip(lessons, generated, strict=True)
        for number, sample in enumerate(samples)
    ]


def gpus_to_ask(recipe: Recipe, settings: Settings) -> int:
    """The number of GPUs for one replica of the student."""
    return settings.tensor_parallel


def _verdict(lesson: Lesson, number: int, sample: Generated, answers: AnswerKind) -> Answered:
    predicted = answers.extract(sample.text)
    return Answered(
        problem_id=lesson.problem_id,
        sample=number,
        question=lesson.question,
        answer=lesson.answer,
        completion=sample.text,
        predicted=predicted,
        correct=answers.match(predicted, lesson.answer),
        valid_format=has_valid_format(sample.text),
        num_tokens=sample.num_tokens,
        truncated=sample.truncated,
    )
