"""The whole curriculum over two hundred problems whose answers are expressions, sets and intervals."""

import json
import random
from pathlib import Path

import pytest

from cotpipe.data.rows import (
    Answered,
    Failure,
    Lesson,
    Problem,
    Reject,
    TeacherRationale,
    read_rows,
)
from cotpipe.progress import Silent
from cotpipe.recipe.files import load_recipe
from cotpipe.settings import Settings
from cotpipe.steps.curriculum import steps_of
from cotpipe.steps.runner import StepRunner
from cotpipe.store.artifacts import open_store
from tests.helpers.flow_runs import TINY
from tests.helpers.training import train_here

CHANGES = [
    "problems.answers.kind=math",
    "problems.source={kind: file, path: math.jsonl, rationale_column: solution}",
    "problems.near_duplicate=1.0",  # the problems differ in their numbers alone
    "stage1.examples.max_problems=8",
    "stage2.examples.max_problems=2",
    "stage2.trainer.prompts_per_step=2",
    "stage3.examples.max_problems=2",
    "stage3.trainer.prompts_per_step=2",
    "stage2.trainer.max_new_tokens=40",
    "mining={max_problems: 12, num_samples: 1, max_new_tokens: 60, max_pass_rate: 0.0}",
    "evaluation={max_problems: 16, max_new_tokens: 60}",
]


def problem(number: int) -> dict[str, str]:
    """A problem in the form of MATH: the solution boxes the answer in another notation than the gold one."""
    rng = random.Random(number)
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    question, gold, boxed = rng.choice(
        [
            (f"Expand $(x+{a})(x+{b})$", f"x^2+{a + b}x+{a * b}", f"(x + {a})(x + {b})"),
            (f"Divide ${a}$ by ${10 * b}$", rf"\frac{{{a}}}{{{10 * b}}}", f"{a}/{10 * b}"),
            (f"Solve $(x-{a})(x+{b})=0$", rf"\{{{-b}, {a}\}}", rf"\left\{{{a}, {-b}\right\}}"),
            (f"Where is $x>{a}$ and $x \\le {a + b}$?", f"({a},{a + b}]", f"({a}, {a + b}]"),
            (f"Simplify $\\sqrt{{{a * a * 3}}}$", rf"{a}\sqrt{{3}}", rf"\sqrt{{{3 * a * a}}}"),
            (f"What is ${12 * a} : {a}$?", "12", rf"\frac{{{12 * a}}}{{{a}}}"),
        ]
    )
    return {
        "question": f"{question} (problem {number})",
        "answer": "even" if number == 7 else gold,
        "solution": f"We look at {a} and {b}.\nThat gives it.\nSo it is $\\boxed{{{boxed}}}$.",
    }


@pytest.fixture
def finished(tmp_path, talker, monkeypatch):
    """Every artifact of the curriculum, and what reads its rows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "cotpipe.steps.train.train",
        lambda job, _processes, on_event, on_training_state, on_line: train_here(
            job, on_event, on_training_state
        ),
    )
    Path("math.jsonl").write_text("\n".join(json.dumps(problem(number)) for number in range(200)))
    recipe = load_recipe(TINY, [*CHANGES, f"student.model={talker}"])
    settings = Settings(store=str(tmp_path / "store"))
    store, made = open_store(settings), {}
    runner = StepRunner(store, settings, Silent())
    for kind, step in steps_of(recipe).items():
        references = {name: outcome.reference for name, outcome in made.items()}
        made[kind] = runner.run(step, recipe, references)

    def rows(kind: str, name: str, row_type: type) -> list:
        return list(read_rows(store.path(made[kind].record, f"{name}.parquet"), row_type))

    return made, rows


def test_the_whole_curriculum_over_answers_that_are_expressions(finished):
    made, rows = finished
    (reject,) = rows("problems", "rejects", Reject)
    assert (reject.reason, made["problems"].record.counts["kept"]) == (
        "gold answer is no expression",
        199,
    )
    taught = rows("rationales", "rationales", TeacherRationale)
    assert len(taught) == 199  # every boxed answer is equal to the gold one
    golds = {row.problem_id: row.answer for row in rows("problems", "problems", Problem)}
    assert all(row.answer == golds[row.problem_id] for row in taught)
    lessons = rows("lessons", "lessons", Lesson)
    for stage in ("stage1", "stage2", "stage3"):
        assert made[stage].record.counts["optimizer_steps"] > 0
    # The student says `Answer: 12` to every question: right where the gold answer is 12.
    for checkpoint in ("base", "stage1"):
        answered = rows(f"evaluation-{checkpoint}", "evaluations", Answered)
        assert {row.predicted for row in answered} - {None}
        for row in answered:
            assert row.correct == (row.predicted == "12" == row.answer)
    assert any(row.correct for row in rows("evaluation-base", "evaluations", Answered))
    failed = {row.problem_id for row in rows("failures", "failures", Failure)}
    wrong = {row.problem_id for row in rows("failures", "completions", Answered) if not row.correct}
    assert failed == wrong != set()
    assert failed <= {lesson.problem_id for lesson in lessons if lesson.split == "mining"}
