"""Sampling and grading a checkpoint's answers to bare questions, for mining and evaluation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cotpipe.data.rows import Answered, Lesson
from cotpipe.engines.base import Generated, Model, Request, Sampling
from cotpipe.engines.served import Served
from cotpipe.engines.source import Source
from cotpipe.errors import UserError
from cotpipe.rationale.answers import AnswerKind
from cotpipe.rationale.format import has_valid_format
from cotpipe.rationale.prompts import Message, question_prompt
from cotpipe.recipe.model import Recipe
from cotpipe.settings import Settings
from cotpipe.steps.generate import SharedEngine, generate
from cotpipe.steps.step import Work


@dataclass(frozen=True)
class Asked:
    """What came of asking a checkpoint."""

    answered: list[Answered]
    too_long: set[str]
    """Ids of the problems whose prompts are too long; their answers are empty, and wrong."""


def ask(
    work: Work,
    checkpoint: str | Served,
    lessons: Sequence[Lesson],
    sampling: Sampling,
    prompt_of: Callable[[Lesson], list[Message]] | None = None,
) -> Asked:
    """The graded answers of a checkpoint, in the order of the lessons.

    Args:
        work: The work of the calling step.
        checkpoint: Kind of the input artifact that contains `model/`, or a model on a server.
        lessons: The lessons whose questions are asked.
        sampling: Sampling parameters.
        prompt_of: The prompt of a lesson; default: the bare question.

    Raises `UserError` if no bare question fits the checkpoint's context.
    """
    if isinstance(checkpoint, Served):
        source = Source("openai", Model(checkpoint.name), checkpoint.on(work.settings))
    else:
        name, stored = work.settings.engine, work.inputs[checkpoint]
        source = Source(name, Model(str(stored)), work.settings, stored)
    answers, instruction = work.recipe.answers, work.recipe.instruction
    shown = prompt_of or (lambda lesson: question_prompt(lesson.question, instruction))

    def requests(positions: Sequence[int]) -> list[Request]:
        chosen = [lessons[position] for position in positions]
        return [Request(lesson.problem_id, shown(lesson)) for lesson in chosen]

    if isinstance(checkpoint, Served):
        identity = checkpoint.identity()
    else:  # by its files: a stage that hands on the checkpoint it got is not asked again
        record = work.store.require(work.inputs[checkpoint])
        identity = {"checkpoint": record.contents("model")}
    ids = [lesson.problem_id for lesson in lessons]
    generated: dict[int, list[Generated]] = {}
    with SharedEngine(source, work.progress.note) as engine:
        for positions, samples in generate(work, engine, identity, ids, requests, sampling):
            generated |= zip(positions, samples, strict=True)
    reasons = {
        ids[position]: one.refused for position, (one, *_) in generated.items() if one.refused
    }
    if prompt_of is None and lessons and len(reasons) == len(lessons):
        raise UserError(f"no prompt fits: {reasons[ids[0]]}; lower max_new_tokens")
    for problem_id, reason in reasons.items():
        work.progress.log(f"problem {problem_id} is not asked: {reason}")
    answered = [
        _verdict(lesson, number, sample, answers)
        for position, lesson in enumerate(lessons)
        for number, sample in enumerate(generated[position])
    ]
    return Asked(answered, set(reasons))


def gpus_to_ask(recipe: Recipe, settings: Settings) -> int:
    """The number of this machine's GPUs for one replica of the student; none if a cluster is asked."""
    return 0 if settings.ray_address else settings.tensor_parallel


def _verdict(lesson: Lesson, number: int, sample: Generated, answers: AnswerKind) -> Answered:
    graded = answers.grade(sample.text, lesson.answer, lesson.question)
    return Answered(
        problem_id=lesson.problem_id,
        sample=number,
        question=lesson.question,
        answer=lesson.answer,
        completion=sample.text,
        predicted=graded.answer,
        correct=graded.right,
        valid_format=has_valid_format(sample.text),
        num_tokens=sample.num_tokens,
        truncated=sample.truncated,
    )
