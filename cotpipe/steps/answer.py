"""Mining and evaluation: a checkpoint answers bare questions, and every answer gets its verdict."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import duckdb

from cotpipe.answers import answers_match, extract_answer
from cotpipe.engines.base import Engine, Generated, Model, Request, Sampling
from cotpipe.engines.choice import open_engine
from cotpipe.errors import UserError
from cotpipe.prompts import question_prompt
from cotpipe.randomness import named_seed
from cotpipe.rationale import has_valid_format
from cotpipe.records import Reference
from cotpipe.rows import Answered, Failure, Lesson, write_rows
from cotpipe.steps.generate import SharedEngine, generate
from cotpipe.steps.prepare import read_lessons
from cotpipe.steps.step import Work


def mine_failures(work: Work) -> dict[str, int]:
    """Write `completions.parquet`, and `failures.parquet` with the persistent failures that have a rationale.

    A failure is persistent where the earlier minings that the recipe names, as far as they asked it, agree.

    Only the mining split is asked, so a held-out problem can never become a training problem here.
    """
    section = work.recipe.mining
    lessons = list(read_lessons(work.input("lessons", "lessons.parquet"), "mining"))[: section.max_problems]
    seed = named_seed(work.recipe.seed, "mining")
    sampling = Sampling(section.num_samples, section.temperature, section.max_new_tokens, seed)
    answered = _ask(work, "stage2", lessons, sampling)
    completions = work.output / "completions.parquet"
    write_rows(completions, Answered, answered)
    earlier = [
        work.stored(Reference(kind="failures", fingerprint=fingerprint), completions.name)
        for fingerprint in section.history
    ]
    num_steps = {lesson.problem_id: len(lesson.teacher_steps) for lesson in lessons}
    rows = _persistent(completions, earlier, section.max_pass_rate)
    failures = [Failure(row[0], num_steps[row[0]], *row[1:]) for row in rows if num_steps[row[0]]]
    write_rows(work.output / "failures.parquet", Failure, failures)
    return {"problems": len(lessons), "persistent_failures": len(failures)}


def _persistent(completions: Path, earlier: list[Path], max_pass_rate: float) -> list[tuple[str, int, int]]:
    """Problem, samples and right ones, of what failed now and in every earlier mining that asked it."""
    query = """
        with asked as (
            select filename = $now as now, problem_id, count(*) as num_samples,
                   count(*) filter (correct) as num_correct, num_correct <= $max_pass_rate * num_samples as failed
            from read_parquet($files, filename = true)
            group by filename, problem_id
        )
        select problem_id, max(num_samples) filter (now), max(num_correct) filter (now)
        from asked
        group by problem_id
        having bool_or(now) and bool_and(failed)
        order by problem_id
    """
    parameters = {
        "files": [str(path) for path in (completions, *earlier)],
        "now": str(completions),
        "max_pass_rate": max_pass_rate,
    }
    with duckdb.connect() as connection:
        return connection.execute(query, parameters).fetchall()


def evaluate(work: Work, checkpoint: str) -> dict[str, int]:
    """Write `evaluations.parquet`: the checkpoint's greedy answers to the held-out problems.

    Raises `UserError` where the held-out split is empty.
    """
    section = work.recipe.evaluation
    lessons = list(read_lessons(work.input("lessons", "lessons.parquet"), section.split))[: section.max_problems]
    if not lessons:
        raise UserError(
            f"evaluation.split: no problem is in the split {section.split!r}; raise problems.splits.{section.split}"
        )
    sampling = Sampling(num_samples=1, temperature=0.0, max_new_tokens=section.max_new_tokens, seed=0)
    answered = _ask(work, checkpoint, lessons, sampling)
    write_rows(work.output / "evaluations.parquet", Answered, answered)
    return {"problems": len(answered), "correct": sum(row.correct for row in answered)}


def _ask(work: Work, checkpoint: str, lessons: Sequence[Lesson], sampling: Sampling) -> list[Answered]:
    def opened() -> AbstractContextManager[Engine]:
        return open_engine(
            work.settings.engine, Model(str(work.input(checkpoint, "model"))), work.settings, work.report.note
        )

    requests = [Request(lesson.problem_id, question_prompt(lesson.question)) for lesson in lessons]
    identity = {"checkpoint": str(work.inputs[checkpoint])}
    with SharedEngine(opened) as engine:
        answers = generate(work, engine, identity, requests, sampling)
    return [
        _verdict(lesson, number, sample)
        for lesson, samples in zip(lessons, answers, strict=True)
        for number, sample in enumerate(samples)
    ]


def _verdict(lesson: Lesson, number: int, sample: Generated) -> Answered:
    predicted = extract_answer(sample.text)
    return Answered(
        problem_id=lesson.problem_id,
        sample=number,
        question=lesson.question,
        answer=lesson.answer,
        completion=sample.text,
        predicted=predicted,
        correct=answers_match(predicted, lesson.answer),
        valid_format=has_valid_format(sample.text),
        num_tokens=sample.num_tokens,
        truncated=sample.truncated,
    )
