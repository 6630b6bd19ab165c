"""The teacher's rationales: asked for in rounds, verified, written again in steps where asked, and what they cost."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from cotpipe.answers import answers_match
from cotpipe.config import Recipe, Teacher
from cotpipe.engines.base import Engine, Generated, Model, Request, Sampling
from cotpipe.engines.choice import open_engine
from cotpipe.engines.reference_engine import ReferenceEngine
from cotpipe.lengths import count_words
from cotpipe.prompts import question_prompt, restructuring_prompt
from cotpipe.randomness import named_seed
from cotpipe.rationale import Rationale, format_rationale, parse_rationale, until_answer
from cotpipe.rows import Problem, Reject, TeacherOutcome, TeacherRationale, read_rows, write_rows
from cotpipe.steps.generate import SharedEngine, generate
from cotpipe.steps.prepare import refuse_too_many, write_with_rejects
from cotpipe.steps.step import Work
from cotpipe.steps.student import folder_identity
from cotpipe.structure import step_graph

_VERIFIED = "verified"
_WITHOUT_STEPS = ("no labelled steps", "too few steps", "too many steps")
"""Reasons to reject a right answer that writing it again in steps may heal."""


@dataclass(frozen=True)
class Judged:
    """One answer of the teacher and what is wrong with it, if anything."""

    problem: Problem
    sample: int
    answer: Generated
    rationale: Rationale
    reason: str | None
    restructured: bool = False


def teacher_identity(recipe: Recipe) -> dict[str, Any]:
    """What of the teacher decides its answers: not the engine that runs it, and a local folder by its content.

    Raises `UserError` for a folder that holds no model.
    """
    teacher = recipe.teacher
    if teacher.engine == "reference":
        return {"engine": "reference"}
    assert teacher.model, "the recipe says so"
    is_local = teacher.engine != "openai"
    return {
        "model": folder_identity(teacher.model, "teacher.model") if is_local else teacher.model,
        "revision": teacher.revision,
        "adapter": folder_identity(teacher.adapter, "teacher.adapter") if teacher.adapter else None,
        "chat_template": teacher.chat_template,
        "template_options": teacher.template_options,
    }


def collect_rationales(work: Work) -> dict[str, int]:
    """Ask, verify, ask again: `rationales.parquet`, `rejects.parquet`, and `teacher.parquet` with the yield."""
    teacher = work.recipe.teacher
    problems = list(read_rows(work.input("problems", "problems.parquet"), Problem))
    judged = _replayed(work, problems) if teacher.engine == "reference" else list(_asked(work, problems))
    answered = {one.problem.problem_id for one in judged}
    rejects = [
        Reject(problem.problem_id, "no rationale", "the teacher has none for this problem")
        for problem in problems
        if problem.problem_id not in answered
    ] + [Reject(one.problem.problem_id, one.reason, one.answer.text[:2000]) for one in judged if one.reason]
    rationales = [_row(one) for one in judged if not one.reason]
    refuse_too_many(rejects, len(rationales), teacher.max_rejected_share, "teacher.max_rejected_share")
    write_rows(work.output / "teacher.parquet", TeacherOutcome, _outcomes(judged))
    counts = write_with_rejects(work.output, TeacherRationale, "rationales", rationales, rejects)
    return counts | dict(Counter(one.reason for one in rejects).most_common())


def _replayed(work: Work, problems: Sequence[Problem]) -> list[Judged]:
    """The data set's own rationales."""
    teacher = work.recipe.teacher
    requests = [Request(problem.problem_id, question_prompt(problem.question)) for problem in problems]
    sampling = Sampling(teacher.num_samples, 0.0, 0, 0)
    answers = ReferenceEngine(problems).generate(requests, sampling, lambda done, total: work.report(done, total, {}))
    return [
        _judge(problem, number, sample, teacher)
        for problem, samples in zip(problems, answers, strict=True)
        for number, sample in enumerate(samples)
    ]


def _asked(work: Work, problems: Sequence[Problem]) -> Iterator[Judged]:
    """A model's answers: every problem in the first round, then those that still have no verified rationale."""
    teacher = work.recipe.teacher
    first_sample, pending = 0, list(problems)
    with SharedEngine(lambda: _open(work)) as engine:
        for number in range(teacher.max_rounds):
            num_samples = teacher.num_samples * 2**number
            judged = _ask_round(work, engine, pending, number, num_samples, first_sample)
            yield from judged
            verified = {one.problem.problem_id for one in judged if not one.reason}
            if teacher.restructure:
                again = _restructure(work, engine, judged, verified, number)
                yield from again
                verified |= {one.problem.problem_id for one in again if not one.reason}
            pending = [problem for problem in pending if problem.problem_id not in verified]
            first_sample += num_samples
            if not pending:
                return


def _open(work: Work) -> AbstractContextManager[Engine]:
    teacher = work.recipe.teacher
    assert teacher.engine != "reference"
    assert teacher.model, "the recipe says so"
    options = teacher.template_options
    model = Model(teacher.model, teacher.revision, teacher.adapter, teacher.chat_template, options)
    return open_engine(teacher.engine, model, work.settings, work.report.note)


def _ask_round(
    work: Work, engine: SharedEngine, problems: Sequence[Problem], number: int, num_samples: int, first_sample: int
) -> list[Judged]:
    teacher = work.recipe.teacher
    requests = [
        Request(problem.problem_id, question_prompt(problem.question, teacher.system_prompt)) for problem in problems
    ]
    sampling = _sampling(work.recipe, num_samples, "teacher", number)
    answers = generate(work, engine, teacher_identity(work.recipe), requests, sampling)
    return [
        _judge(problem, first_sample + index, sample, teacher)
        for problem, samples in zip(problems, answers, strict=True)
        for index, sample in enumerate(samples)
    ]


def _restructure(
    work: Work, engine: SharedEngine, judged: Sequence[Judged], verified: set[str], number: int
) -> list[Judged]:
    """One right answer without usable steps of each problem that has no verified rationale, written again in steps."""
    teacher = work.recipe.teacher
    chosen: dict[str, Judged] = {}
    for one in judged:
        if one.reason in _WITHOUT_STEPS and one.problem.problem_id not in verified:
            chosen.setdefault(one.problem.problem_id, one)
    requests = [
        Request(key, restructuring_prompt(one.problem.question, one.answer.text, one.problem.answer))
        for key, one in chosen.items()
    ]
    sampling = _sampling(work.recipe, 1, "restructure", number)
    answers = generate(work, engine, teacher_identity(work.recipe), requests, sampling)
    return [
        _judge(one.problem, one.sample, samples[0], teacher, restructured=True)
        for one, samples in zip(chosen.values(), answers, strict=True)
    ]


def _sampling(recipe: Recipe, num_samples: int, purpose: str, number: int) -> Sampling:
    teacher, seed = recipe.teacher, named_seed(recipe.seed, purpose, number)
    return Sampling(num_samples, teacher.temperature, teacher.max_new_tokens, seed, teacher.top_p, teacher.stop)


def _judge(problem: Problem, number: int, sample: Generated, teacher: Teacher, restructured: bool = False) -> Judged:
    text = until_answer(sample.text)
    rationale = parse_rationale(text)
    truncated = sample.truncated and text == sample.text
    reason = _reason_to_reject(rationale, problem.answer, teacher, truncated)
    return Judged(problem, number, sample, rationale, reason, restructured)


def _reason_to_reject(rationale: Rationale, gold: str, teacher: Teacher, truncated: bool) -> str | None:
    if truncated:
        return "truncated"
    if rationale.answer is None:
        return "no answer"
    if not answers_match(rationale.answer, gold):
        return "wrong answer"
    if teacher.engine != "reference" and not rationale.labelled:
        return "no labelled steps"  # data sets have a step a line; what models say around their steps is none
    if len(rationale.steps) < teacher.min_steps:
        return "too few steps"
    if len(rationale.steps) > teacher.max_steps:
        return "too many steps"
    if max(Counter(rationale.steps).values()) > max(2, len(rationale.steps) // 2):
        return "repeats itself"
    return None


def _row(one: Judged) -> TeacherRationale:
    problem, steps = one.problem, one.rationale.steps
    graph = step_graph(problem.question, steps, problem.answer)
    return TeacherRationale(
        problem_id=problem.problem_id,
        sample=one.sample,
        steps=steps,
        answer=problem.answer,
        num_words=count_words(format_rationale(steps, problem.answer)),
        num_tokens=one.answer.num_tokens,
        restructured=one.restructured,
        uses=graph.uses,
        distance=graph.distance,
        critical=graph.critical,
    )


def _outcomes(judged: Sequence[Judged]) -> list[TeacherOutcome]:
    """The yield: the verified answers first, then the reasons to reject by how often they came up."""
    groups: dict[str, list[Judged]] = {_VERIFIED: []}
    for one in judged:
        groups.setdefault(one.reason or _VERIFIED, []).append(one)
    rows = [
        TeacherOutcome(
            outcome=outcome,
            num_answers=len(answers),
            share=len(answers) / max(len(judged), 1),
            mean_words=sum(count_words(one.answer.text) for one in answers) / max(len(answers), 1),
            num_tokens=sum(one.answer.num_tokens for one in answers),
        )
        for outcome, answers in groups.items()
    ]
    return sorted(rows, key=lambda row: (row.outcome != _VERIFIED, -row.num_answers, row.outcome))
