"""Verification of the teacher's answers: accept correct ones in steps, reject the rest."""

from collections import Counter
from dataclasses import dataclass

from cotpipe.data.rows import Problem, Reject, TeacherOutcome, TeacherRationale
from cotpipe.engines.base import Generated
from cotpipe.rationale.answers import Graded
from cotpipe.rationale.format import (
    MAX_RATIONALE_CHARS,
    Rationale,
    format_rationale,
    parse_steps,
    until_answer,
)
from cotpipe.rationale.graph import rationale_graph
from cotpipe.rationale.lengths import count_words
from cotpipe.recipe.model import Recipe

_VERIFIED = "verified"
PROMPT_TOO_LONG = "prompt too long"
"""Reason to reject where the model could not be asked."""
WITHOUT_STEPS = ("no labelled steps", "too few steps", "too many steps")
"""Reasons to reject a correct answer that a rewrite in steps may fix."""


@dataclass(frozen=True)
class Judged:
    """An answer of the teacher, with the reason to reject it, if any."""

    problem: Problem
    sample: int
    answer: Generated
    rationale: Rationale
    reason: str | None
    restructured: bool = False


def judge(
    problem: Problem, number: int, sample: Generated, recipe: Recipe, restructured: bool = False
) -> Judged:
    """Parse an answer and decide whether to teach it.

    Args:
        problem: The problem.
        number: Index of the sample among those of the problem.
        sample: The teacher's answer.
        recipe: The recipe with the thresholds.
        restructured: Whether the teacher rewrote it in steps on request.
    """
    if sample.refused:
        return Judged(problem, number, sample, Rationale([], None, False), PROMPT_TOO_LONG)
    answers = recipe.answers
    text = until_answer(sample.text, answers)
    graded = answers.grade(text[:MAX_RATIONALE_CHARS], problem.answer, problem.question)
    rationale = parse_steps(text, graded.answer)
    truncated = sample.truncated and text == sample.text
    reason = _reason_to_reject(rationale, graded, recipe, truncated)
    return Judged(problem, number, sample, rationale, reason, restructured)


def _reason_to_reject(
    rationale: Rationale, graded: Graded, recipe: Recipe, truncated: bool
) -> str | None:
    teacher = recipe.teacher
    if truncated:
        return "truncated"
    if graded.unchecked:
        return graded.unchecked
    if graded.answer is None:
        return "no answer"
    if not graded.right:
        return "wrong answer"
    if teacher.engine != "reference" and not rationale.labelled:
        # Datasets have one step per line; models write other text around their steps.
        return "no labelled steps"
    if len(rationale.steps) < teacher.min_steps:
        return "too few steps"
    if len(rationale.steps) > teacher.max_steps:
        return "too many steps"
    if max(Counter(rationale.steps).values()) > max(2, len(rationale.steps) // 2):
        return "repeats itself"
    return None


def row_of(one: Judged) -> TeacherRationale | Reject:
    """A verified rationale with its step graph, or the rejected answer."""
    if one.reason:
        detail = one.answer.refused or one.answer.text
        return Reject(one.problem.problem_id, one.reason, detail[:2000])
    problem, steps = one.problem, one.rationale.steps
    graph = rationale_graph(problem.question, steps, problem.answer)
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


class Outcomes:
    """Counts of the teacher's answers, by outcome."""

    def __init__(self) -> None:
        self._answers: Counter[str] = Counter()
        self._words: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()

    def count(self, one: Judged) -> None:
        """Add an answer."""
        outcome = one.reason or _VERIFIED
        self._answers[outcome] += 1
        self._words[outcome] += count_words(one.answer.text)
        self._tokens[outcome] += one.answer.num_tokens

    def rows(self) -> list[TeacherOutcome]:
        """Verified answers first, then the reasons to reject by frequency."""
        total = self._answers.total()
        rows = [
            TeacherOutcome(
                outcome=outcome,
                num_answers=number,
                share=number / max(total, 1),
                mean_words=self._words[outcome] / max(number, 1),
                num_tokens=self._tokens[outcome],
            )
            for outcome, number in ({_VERIFIED: 0} | self._answers).items()
        ]
        return sorted(
            rows, key=lambda row: (row.outcome != _VERIFIED, -row.num_answers, row.outcome)
        )
