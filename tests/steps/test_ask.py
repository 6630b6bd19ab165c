"""Asking a checkpoint: questions that are too long for it, and a copy of one that was asked before."""

import pytest

from cotpipe.data.rows import Answered, Failure, Lesson, read_rows
from cotpipe.errors import UserError
from cotpipe.recipe.files import load_recipe
from cotpipe.recipe.model import Recipe
from cotpipe.steps import evaluate, mine
from cotpipe.steps.step import Step, Work
from tests.helpers.asking import runner_with, student_and_lessons

ENGINE = """
from contextlib import contextmanager
from cotpipe.engines import Generated

class Short:
    def generate(self, requests, sampling, progress):
        long, wrong = Generated("", 0, False, refused="too long"), Generated("Answer: 9", 3, False)
        return [
            [long if "long" in one.prompt[-1]["content"] else wrong] * sampling.num_samples
            for one in requests
        ]

@contextmanager
def opened(model, settings):
    yield Short()
"""


@pytest.fixture
def run(tmp_path):
    runner = runner_with(tmp_path, ENGINE)

    def run(step, *questions: str):
        lessons = [
            Lesson(f"p{number}", split, 0.1, question, "1", ["a", "b"], 3, [[], []], [1, 0], [1])
            for split in ("mining", "test")
            for number, question in enumerate(questions)
        ]
        inputs = student_and_lessons(runner, lessons)
        record = runner.run(step, load_recipe("demo"), inputs).record
        return record, lambda name, row: list(read_rows(runner.store.path(record, name), row))

    return run


def test_a_question_that_is_too_long_counts_as_wrong_and_is_told(run):
    record, rows = run(evaluate.step("base"), "How many?", "A long story. How many?")
    assert record.counts == {"problems": 2, "correct": 0, "prompts_too_long": 1}
    assert [row.completion for row in rows("evaluations.parquet", Answered)] == ["Answer: 9", ""]


def test_a_problem_that_cannot_be_asked_is_no_failure_of_the_student(run):
    record, rows = run(mine.step("failures", "student"), "How many?", "A long story. How many?")
    counts = {"problems": 2, "persistent_failures": 1, "prompts_too_long": 1, "sampled_tokens": 12}
    assert record.counts == counts
    assert [row.problem_id for row in rows("failures.parquet", Failure)] == ["p0"]


def test_a_student_that_cannot_be_asked_anything_is_told(run):
    with pytest.raises(UserError, match="no prompt fits: too long; lower max_new_tokens"):
        run(evaluate.step("base"), "A long story.")


COUNTING = ENGINE.replace(
    "def generate(self, requests, sampling, progress):",
    "def generate(self, requests, sampling, progress):\n        open(LOG, 'a').write('asked ')",
)


def test_a_stage_that_handed_on_its_checkpoint_is_not_asked_again(tmp_path):
    log = tmp_path / "log"
    runner = runner_with(tmp_path, COUNTING.replace("LOG", repr(str(log))))
    lesson = Lesson("p0", "test", 0.1, "How many?", "1", ["a", "b"], 3, [[], []], [1, 0], [1])
    inputs = student_and_lessons(runner, [lesson])

    def trained(kind: str, contents: str) -> Step:
        def write(work: Work) -> dict[str, int]:
            (work.output / "model").mkdir()
            (work.output / "model" / "x").write_text(contents)
            (work.output / "log").write_text(kind)
            return {}

        return Step(kind, 1, (), lambda recipe: {}, write)

    asked = {}
    for kind, contents in (("base", ""), ("handed-on", ""), ("learnt", "else")):
        if kind != "base":
            inputs[kind] = runner.run(trained(kind, contents), Recipe(), {}).reference
        record = runner.run(evaluate.step(kind), load_recipe("demo"), inputs).record
        assert record.counts == {"problems": 1, "correct": 0}
        asked[kind] = log.read_text().count("asked")
    assert asked == {"base": 1, "handed-on": 1, "learnt": 2}
