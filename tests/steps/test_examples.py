"""From lessons to training examples: what is masked, in which order, and what is taught to nobody."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotpipe.data.rows import Lesson, to_table
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
TABLE = to_table(Lesson, LESSONS)


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
    lessons = TABLE.slice(0, 6)
    for rows in (
        rows_of(Reconstruction(), seed, lessons),
        rows_of(Completion(), seed, lessons),
    ):
        for row in rows:
            shown = row.prompt[-1]["content"]
            assert not any(row.teacher_steps[index] in shown for index in row.masked)


def test_lessons_without_a_rationale_are_not_taught(tmp_path):
    from cotpipe.data.rows import Example, read_rows, write_rows

    class Work:
        recipe, output = Recipe(), tmp_path

        @staticmethod
        def input(kind, name):
            return tmp_path / name

    write_rows(tmp_path / "lessons.parquet", Lesson, [lesson(1, 0), lesson(2, 3), lesson(3, 0)])
    work: Any = Work()
    assert step.step(Recipe().stages[0], "failures").run(work) == {"kept": 1}
    assert [row.problem_id for row in read_rows(tmp_path / "examples.parquet", Example)] == ["id2"]


def test_without_persistent_failures_there_are_no_examples(tmp_path):
    from cotpipe.data.rows import Example, Failure, read_rows, write_rows

    class Work:
        recipe, output = load_recipe("demo"), tmp_path

        @staticmethod
        def input(kind, name):
            return tmp_path / name

    write_rows(tmp_path / "lessons.parquet", Lesson, [lesson(1)])
    write_rows(tmp_path / "failures.parquet", Failure, [])
    work: Any = Work()
    assert step.step(Recipe().stages[2], "failures").run(work) == {"kept": 0}
    assert list(read_rows(tmp_path / "examples.parquet", Example)) == []


def test_mined_failures_that_are_held_out_are_refused(tmp_path):
    from cotpipe.data.rows import Failure, Lesson, write_rows

    lessons = [
        Lesson(f"p{number}", split, 0.1, "q", "1", ["a", "b"], 3, [[], []], [1, 0], [1])
        for number, split in enumerate(["mining", "test"])
    ]
    write_rows(tmp_path / "lessons.parquet", Lesson, lessons)
    write_rows(
        tmp_path / "failures.parquet", Failure, [Failure("p0", 2, 4, 0), Failure("p1", 2, 4, 0)]
    )

    class Work:
        recipe, output = load_recipe("demo"), tmp_path

        @staticmethod
        def input(kind, name):
            return tmp_path / name

    work: Any = Work()
    with pytest.raises(RunError, match="mined failures are not in the mining split: p1"):
        step.step(Recipe().stages[2], "failures").run(work)
