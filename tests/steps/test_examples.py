"""From lessons to training examples: what is masked, in which order, and what is taught to nobody."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotpipe.data.rows import Example, Failure, Lesson, read_rows, write_rows
from cotpipe.errors import RunError
from cotpipe.rationale.masks import PLACEHOLDER
from cotpipe.rationale.prompts import question_prompt
from cotpipe.recipe.examples import Completion, Masks, Reconstruction, Rewriting
from cotpipe.recipe.files import load_recipe
from cotpipe.recipe.model import Recipe
from cotpipe.recipe.stages import Stage
from cotpipe.recipe.trainers import Sft
from cotpipe.steps import examples as step
from cotpipe.steps.examples import examples
from tests.helpers.lessons import Table


def rows_of(section, seed, lessons=None):
    stage = Stage(name=section.published_in, examples=section, trainer=Sft())
    return list(examples(TABLE if lessons is None else lessons, stage, seed))


def lesson(number: int, num_steps: int = 4) -> Lesson:
    steps = [f"p{number}s{index}" for index in range(num_steps)]
    return Lesson(
        f"id{number}",
        "stage1",
        0.0,
        f"question {number}?",
        "7",
        steps,
        20,
        [[] for _ in steps],
        [0] * len(steps),
        [],
    )


LESSONS = [lesson(number, 2 + number % 4) for number in range(30)]
TABLE = Table(LESSONS)


def test_same_seed_same_rows_and_fresh_ones_per_epoch():
    stage = Reconstruction(num_epochs=3, masks=Masks(amount="one", probability=0.7))
    first, again = rows_of(stage, 1), rows_of(stage, 1)
    assert first == again
    assert first != rows_of(stage, 2)
    epochs = [[row for row in first if row.epoch == epoch] for epoch in range(3)]
    assert [sorted(row.problem_id for row in rows) for rows in epochs] == [
        sorted(one.problem_id for one in LESSONS)
    ] * 3
    assert [row.problem_id for row in epochs[0]] != [row.problem_id for row in epochs[1]]
    prompts = [{row.problem_id: row.prompt for row in rows} for rows in epochs]
    assert sum(prompts[0][one.problem_id] != prompts[1][one.problem_id] for one in LESSONS) > 15


def test_published_stage1_masks_one_step_in_seven_of_ten_rows_and_shuffles():
    stage = Reconstruction(num_epochs=40, masks=Masks(amount="one", probability=0.7))
    rows = rows_of(stage, 3)
    counts = Counter(len(row.masked) for row in rows)
    assert set(counts) == {0, 1}
    assert 0.65 < counts[1] / len(rows) < 0.75
    for row in rows:
        shown = [
            line[2:] for line in row.prompt[-1]["content"].splitlines() if line.startswith("- ")
        ]
        hidden = {row.teacher_steps[index] for index in row.masked}
        assert sorted(shown) == sorted(
            [step for step in row.teacher_steps if step not in hidden] + [PLACEHOLDER] * len(hidden)
        )


def test_stage2_keeps_the_order_and_one_step():
    for row in rows_of(Completion(), 5):
        lines = [
            line for line in row.prompt[-1]["content"].splitlines() if line.startswith("Step ")
        ]
        assert [line.split(": ", 1)[1] for line in lines] == [
            PLACEHOLDER if index in row.masked else step
            for index, step in enumerate(row.teacher_steps)
        ]
        assert len(row.masked) < len(row.teacher_steps)


def test_a_rising_share_ends_at_the_bare_question():
    stage = Reconstruction(masks=Masks(amount="share", first_share=0.0, last_share=1.0, ramp=0.5))
    rows = rows_of(stage, 1)
    assert rows[0].masked == []
    bare = [
        row.prompt
        == question_prompt(next(o.question for o in LESSONS if o.problem_id == row.problem_id))
        for row in rows
    ]
    assert all(bare[len(rows) // 2 + 1 :])
    assert not any(bare[: len(rows) // 4])


def test_stage3_anneals_the_hint_away():
    rows = rows_of(Rewriting(num_epochs=10), 1)
    hinted = [len(row.prompt[-1]["content"]) > 40 for row in rows]
    third = len(rows) // 3
    assert sum(hinted[:third]) > sum(hinted[third : 2 * third]) > sum(hinted[2 * third :])
    assert hinted[0]
    assert not hinted[-1]


@given(st.integers(0, 1000))
def test_no_prompt_shows_what_is_masked(seed):
    lessons = Table(LESSONS[:6])
    for rows in (
        rows_of(Reconstruction(), seed, lessons),
        rows_of(Completion(), seed, lessons),
    ):
        for row in rows:
            shown = row.prompt[-1]["content"]
            assert not any(row.teacher_steps[index] in shown for index in row.masked)


def write(tmp_path, lessons, failures=()) -> Any:
    """The work of a step that reads these lessons and failures."""
    write_rows(tmp_path / "lessons.parquet", Lesson, lessons)
    write_rows(tmp_path / "failures.parquet", Failure, failures)

    class Work:
        recipe, output = load_recipe("demo"), tmp_path

        @staticmethod
        def input(kind, name):
            return tmp_path / name

    return Work()


def mined(problem_id: str, split: str = "mining") -> Lesson:
    return Lesson(problem_id, split, 0.1, "q", "1", ["a", "b"], 3, [[], []], [1, 0], [1])


def test_lessons_without_a_rationale_are_not_taught(tmp_path):
    work = write(tmp_path, [lesson(1, 0), lesson(2, 3), lesson(3, 0)])
    assert step.step(Recipe().stages[0], "failures").run(work) == {"kept": 1}
    assert [row.problem_id for row in read_rows(tmp_path / "examples.parquet", Example)] == ["id2"]


def test_lessons_from_a_file_are_taught_as_those_in_memory(tmp_path):
    stage = Recipe().stages[0]
    expected = list(examples(TABLE, stage, load_recipe("demo").seed))
    assert step.step(stage, "failures").run(write(tmp_path, LESSONS))["kept"] == len(expected)
    assert list(read_rows(tmp_path / "examples.parquet", Example)) == expected


def test_only_mined_failures_are_taught_where_a_stage_asks_for_them(tmp_path):
    work = write(tmp_path, [mined("p0"), mined("p1"), mined("p2")], [Failure("p1", 2, 4, 0)])
    step.step(Recipe().stages[2], "failures").run(work)
    rows = list(read_rows(tmp_path / "examples.parquet", Example))
    assert {row.problem_id for row in rows} == {"p1"}


def test_a_student_without_failures_has_nothing_to_learn_from_them(tmp_path):
    work = write(tmp_path, [mined("p0")])
    assert step.step(Recipe().stages[2], "failures").run(work) == {"kept": 0}
    assert list(read_rows(tmp_path / "examples.parquet", Example)) == []


def test_mined_failures_that_are_held_out_are_refused(tmp_path):
    failures = [Failure("p0", 2, 4, 0), Failure("p1", 2, 4, 0)]
    work = write(tmp_path, [mined("p0"), mined("p1", "test")], failures)
    with pytest.raises(RunError, match="mined failures are not in the mining split: p1"):
        step.step(Recipe().stages[2], "failures").run(work)
