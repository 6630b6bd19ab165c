"""The attempts of a stage: what its initial checkpoint makes of the problems before training.

They give the pass rates by which GRPO chooses its prompts, and the student's own right answers.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from cotpipe.data.rows import Attempt, Lesson, PassRate, read_rows, write_rows
from cotpipe.engines.base import Sampling
from cotpipe.randomness import named_seed
from cotpipe.rationale.prompts import Message, hinted_prompt
from cotpipe.recipe.examples import OwnAnswers, PassRates
from cotpipe.recipe.model import Recipe
from cotpipe.recipe.stages import Stage
from cotpipe.steps.ask import ask, gpus_to_ask
from cotpipe.steps.spilling import bounded_database
from cotpipe.steps.step import Step, Work
from cotpipe.steps.taught import TaughtLessons

ATTEMPTS = "attempts.parquet"
RATES = "pass_rates.parquet"


def step(stage: Stage, start: str, mined: str) -> Step:
    """The step that samples the answers of the checkpoint `start` to a stage's problems."""

    def fields(recipe: Recipe) -> dict[str, object]:
        section = stage.examples
        own = {
            "problems": section.problems,
            "max_problems": section.max_problems,
            "pass_rates": section.pass_rates and section.pass_rates.sampled(),
            "hints": isinstance(section, OwnAnswers) and section.hints,
        }
        return recipe.fields("seed", "problems.answers") | {
            f"{stage.name}.{key}": value for key, value in own.items()
        }

    from_failures = stage.examples.problems == "failures"
    return Step(
        kind=f"{stage.name}-attempts",
        version=2,
        inputs=(start, "lessons", mined) if from_failures else (start, "lessons"),
        fields=fields,
        run=partial(sample_attempts, stage=stage, start=start, mined=mined),
        verb="mine",
        gpus=gpus_to_ask,
    )


def sample_attempts(work: Work, stage: Stage, start: str, mined: str) -> dict[str, int]:
    """Write `attempts.parquet`, and `pass_rates.parquet` with those of the bare questions.

    With hints, problems without a right answer are asked again with one step of the teacher's
    rationale, then two, and so on, as long as one is left to be found.

    Args:
        work: The work of the step.
        stage: The stage.
        start: Kind of its initial checkpoint.
        mined: Kind of the failures artifact that it may take its problems from.
    """
    section = stage.examples
    settings = section.pass_rates
    assert settings
    with bounded_database(work.output) as database:
        taught = TaughtLessons(database, work, stage, mined)
        lessons = list(taught.in_order(range(len(taught))))
    attempts = _ask(work, start, lessons, settings, 0)
    asked_of = Counter(attempt.problem_id for attempt in attempts)
    right_of = Counter(attempt.problem_id for attempt in attempts if attempt.right)
    rates = [
        PassRate(one.problem_id, asked_of[one.problem_id], right_of[one.problem_id])
        for one in lessons
    ]
    unsolved = [lesson for lesson in lessons if not right_of[lesson.problem_id]]
    num_unsolved = len(unsolved)
    hinted = isinstance(section, OwnAnswers) and section.hints
    rung = 1
    while hinted and (asked := [one for one in unsolved if rung < len(one.teacher_steps)]):
        found = _ask(work, start, asked, settings, rung)
        attempts += found
        solved = {attempt.problem_id for attempt in found if attempt.right}
        unsolved = [lesson for lesson in unsolved if lesson.problem_id not in solved]
        rung += 1
    write_rows(work.output / ATTEMPTS, Attempt, attempts)
    write_rows(work.output / RATES, PassRate, rates)
    return {
        "problems": len(lessons),
        "attempts": len(attempts),
        "right": sum(attempt.right for attempt in attempts),
        "unsolved": num_unsolved,
        "sampled_tokens": sum(attempt.num_tokens for attempt in attempts),
    } | ({"unsolved_with_hints": len(unsolved)} if hinted else {})


def _ask(
    work: Work, start: str, lessons: list[Lesson], settings: PassRates, rung: int
) -> list[Attempt]:
    """Sample answers, with the first `rung` steps of each teacher's rationale as a hint."""
    if not lessons:
        return []
    seed = named_seed(work.recipe.seed, "attempts", rung)
    sampling = Sampling(settings.num_samples, settings.temperature, settings.max_new_tokens, seed)
    instruction = work.recipe.instruction

    def hinted(lesson: Lesson) -> list[Message]:
        return hinted_prompt(lesson.question, lesson.teacher_steps, rung, instruction)

    asked = ask(work, start, lessons, sampling, hinted if rung else None)
    return [
        Attempt(
            row.problem_id, rung, row.sample, row.completion, row.correct and row.valid_format,
            row.num_tokens,
        )
        for row in asked.answered
        if row.problem_id not in asked.too_long
    ]  # fmt: skip


@dataclass(frozen=True)
class Attempted:
    """What the attempts of a stage tell about its problems."""

    pass_rates: Mapping[str, float]  # of the bare question, by problem id
    own_answers: Mapping[str, str]  # the shortest right one with the least help, by problem id


def read_attempts(work: Work, stage: Stage) -> Attempted:
    """Read the attempts of a stage."""
    kind = f"{stage.name}-attempts"
    rates = read_rows(work.input(kind, RATES), PassRate)
    right = [row for row in read_rows(work.input(kind, ATTEMPTS), Attempt) if row.right]
    right.sort(key=lambda row: (row.problem_id, row.rung, row.num_tokens, row.sample))
    shortest: dict[str, str] = {}
    for row in right:
        shortest.setdefault(row.problem_id, row.completion)
    return Attempted(
        {one.problem_id: one.num_right / max(one.num_samples, 1) for one in rates}, shortest
    )
