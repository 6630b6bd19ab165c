"""What a checkpoint makes of a stage's problems: pass rates, and its own answers with the least help."""

import pytest

from cotpipe.data.rows import Attempt, Example, Lesson, PassRate, read_rows
from cotpipe.recipe.model import Recipe
from cotpipe.steps import attempts, examples
from cotpipe.steps.attempts import Attempted
from tests.helpers.asking import runner_with, student_and_lessons
from tests.helpers.lessons import Table

ENGINE = """
from contextlib import contextmanager
from cotpipe.engines import Generated

LONG = "Step 1: one two three four five\\nStep 2: six\\nAnswer: 1"
SHORT = "Step 1: one\\nAnswer: 1"
WRONG = "Step 1: one\\nAnswer: 9"
MALFORMED = "1"

class Scripted:
    def generate(self, requests, sampling, progress):
        return [[self.written(text) for text in self.answers(one.prompt[-1]["content"])] for one in requests]

    def written(self, text):
        return Generated(text, len(text.split()), False, refused="" if text else "the prompt is too long")

    def answers(self, question):
        if "easy" in question:
            return [LONG, SHORT, SHORT, LONG]
        if "hard" in question and "Step 2: b" in question:
            return [WRONG, LONG, WRONG, WRONG]
        if "half" in question:
            return [MALFORMED, WRONG, LONG, LONG]
        if "narrow" in question and "Step 2: b" in question:
            return [""] * 4
        return [WRONG] * 4

@contextmanager
def opened(model, settings):
    yield Scripted()
"""
STEPS = ["a", "b", "c"]


def lesson(name: str) -> Lesson:
    return Lesson(
        name, "mining", 0.1, f"{name} question", "1", STEPS, 3, [[], [], []], [2, 1, 0], [2]
    )


LESSONS = [lesson(name) for name in ("easy", "hard", "half", "narrow", "hopeless")]


def recipe(task: str, trainer: str) -> Recipe:
    section = {
        "task": task, "problems": "mining",
        "pass_rates": {"num_samples": 4, "max_new_tokens": 50, "rungs": 4},
    }  # fmt: skip
    stage = {"name": "stage3", "examples": section, "trainer": {"kind": trainer}}
    return Recipe.model_validate({"stages": [stage]})


@pytest.fixture
def run(tmp_path):
    runner = runner_with(tmp_path, ENGINE)

    def run(recipe: Recipe):
        (stage,) = recipe.stages
        inputs = student_and_lessons(runner, LESSONS)
        outcome = runner.run(attempts.step(stage, "student", "failures"), recipe, inputs)
        inputs["stage3-attempts"] = outcome.reference
        made_of = runner.run(examples.step(stage, "failures"), recipe, inputs).record
        rows = {
            name: list(read_rows(runner.store.path(record, f"{name}.parquet"), row_type))
            for name, record, row_type in (
                ("pass_rates", outcome.record, PassRate),
                ("attempts", outcome.record, Attempt),
                ("examples", made_of, Example),
            )
        }
        return outcome.record.counts, rows

    return run


def test_own_answers_are_the_shortest_right_ones_with_the_least_help(run):
    counts, rows = run(recipe("own-answers", "sft"))
    assert {one.problem_id: one.num_right for one in rows["pass_rates"]} == {
        "easy": 4, "hard": 0, "half": 2, "narrow": 0, "hopeless": 0
    }  # fmt: skip
    assert (counts["unsolved"], counts["unsolved_with_hints"]) == (3, 2)
    rungs = {(one.problem_id, one.rung) for one in rows["attempts"]}
    assert rungs == {
        ("easy", 0), ("half", 0), ("hard", 0), ("hard", 1), ("hard", 2),
        ("narrow", 0), ("narrow", 1),  # a hint of two steps does not fit its context
        ("hopeless", 0), ("hopeless", 1), ("hopeless", 2),
    }  # fmt: skip
    taught = {one.problem_id: one for one in rows["examples"]}
    assert taught.keys() == {"easy", "hard", "half"}
    assert taught["easy"].target == "Step 1: one\nAnswer: 1"
    assert taught["hard"].target.startswith("Step 1: one two")
    for one in taught.values():  # what was won with a hint is taught without it
        assert one.prompt[-1]["content"] == f"{one.problem_id} question"


def test_prompts_by_pass_rate_come_from_easy_to_hard_with_degrees_of_help(run):
    _, rows = run(recipe("completion", "grpo"))
    order = list(dict.fromkeys(one.problem_id for one in rows["examples"]))
    assert order[:2] == ["easy", "half"]
    assert {one.pass_rate for one in rows["examples"] if one.problem_id == "half"} == {0.5}
    for name in order:
        hidden = [len(one.masked) for one in rows["examples"] if one.problem_id == name]
        assert hidden == sorted(set(hidden), reverse=True)
        assert hidden[0] == len(STEPS)  # the bare question comes first


def test_rewriting_shows_the_first_steps_and_at_last_all():
    stage = recipe("rewriting", "grpo").stages[0]
    rows = list(examples.ladders(Table(LESSONS[:1]), stage, Attempted({"easy": 0.0}, {}), 1))
    shown = [[step for step in STEPS if f": {step}" in row.prompt[-1]["content"]] for row in rows]
    assert shown == [[], ["a"], ["a", "b"], ["a", "b", "c"]]
    assert [len(row.masked) for row in rows] == [3, 2, 1, 0]
