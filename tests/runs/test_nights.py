"""What a night takes in, and what it trains on."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cotpipe.data.problems.stored import StoredSource
from cotpipe.errors import UserError
from cotpipe.progress import Silent
from cotpipe.recipe.model import Recipe
from cotpipe.runs.nights import INBOX, new_files, night_recipe, take_in
from cotpipe.runs.promotion import ModelRegistry, Night, Taken
from cotpipe.settings import Settings
from cotpipe.steps import problems, student
from cotpipe.steps.curriculum import steps_of
from cotpipe.steps.runner import StepRunner
from cotpipe.store.artifacts import open_store
from cotpipe.store.records import Reference

ROW = {"question": "How many?", "answer": "One and one.\nThat is two.\n#### 2"}


@pytest.fixture
def runner(tmp_path) -> StepRunner:
    settings = Settings(store=str(tmp_path / "store"))
    return StepRunner(open_store(settings), settings, Silent())


def put(runner: StepRunner, name: str, *questions: str, end: str = "\n") -> None:
    path = Path(runner.settings.store, INBOX, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "\n".join(json.dumps(ROW | {"question": question}) for question in questions) + end
    )


def test_new_files_are_those_that_no_night_has_taken(runner):
    for name in ("b.jsonl", "a.jsonl", ".hidden.jsonl", "notes.txt", "c.jsonl.part", "deep/d.csv"):
        put(runner, name, "How many?")
    assert list(new_files(runner.store.storage, ModelRegistry())) == [
        "a.jsonl",
        "b.jsonl",
        "deep/d.csv",
    ]
    taken = take_in(runner, Recipe(), "a.jsonl")
    registry = ModelRegistry(taken=[taken])
    assert list(new_files(runner.store.storage, registry)) == ["b.jsonl", "deep/d.csv"]
    put(runner, "a.jsonl", "How many?", "And now?")  # it has grown
    assert "a.jsonl" in new_files(runner.store.storage, registry)


@pytest.mark.parametrize(
    ("name", "end", "part"),
    [
        ("half.jsonl", "", "inbox/half.jsonl does not end with a newline"),
        ("half.jsonl", '\n{"question": "Wh\n', "inbox/half.jsonl, line 2: invalid JSON"),
        ("half.parquet", "", "inbox/half.parquet: cannot be read as parquet"),
        ("half.csv", "", "inbox/half.csv does not end with a newline"),
    ],
)
def test_a_file_that_is_not_whole_is_told_by_its_name_in_the_inbox(runner, name, end, part):
    put(runner, name, "How many?", end=end)
    with pytest.raises(UserError, match=part):
        take_in(runner, Recipe(), name)


def test_a_night_goes_on_from_the_promoted_checkpoint_and_remembers_the_nights_before():
    batches = [Reference(kind="problems", fingerprint=digit * 32) for digit in "ab"]
    checkpoint = Reference(kind="stage3", fingerprint="c" * 32)
    minings = [Reference(kind="failures", fingerprint=f"{number:032x}") for number in range(4)]
    nights = [
        Night(run_id="r", mining=mining, candidate=checkpoint, promoted=True, why="")
        for mining in minings
    ]
    registry = ModelRegistry(nights=nights).with_promotion(checkpoint, "r", "")
    for history, remembered in ((1, 0), (2, 1), (3, 2), (9, 4)):
        recipe = night_recipe(Recipe(), batches, registry, history)
        assert recipe.student.model == f"store:{checkpoint}"
        assert recipe.problems.source == StoredSource(problems=("a" * 32, "b" * 32))
        assert recipe.mining.history == tuple(one.fingerprint for one in minings[4 - remembered :])
    assert night_recipe(Recipe(), batches, ModelRegistry(), 3).student == Recipe().student


def test_batches_are_joined_newest_first_and_repeated_questions_stay_with_the_first(runner):
    put(runner, "one.jsonl", *(f"How many {number}?" for number in range(40)))
    put(runner, "two.jsonl", "How many 3?", *(f"How much {number}?" for number in range(40)))
    taken: list[Taken] = [take_in(runner, Recipe(), name) for name in ("one.jsonl", "two.jsonl")]
    recipe = night_recipe(Recipe(), [file.problems for file in taken], ModelRegistry(), 3)
    found = {}
    for kind in ("problems", "rationales", "lessons"):
        outcome = runner.run(
            steps_of(recipe)[kind],
            recipe,
            {name: found[name] for name in steps_of(recipe)[kind].inputs},
        )
        found[kind] = outcome.reference
        if kind == "problems":
            assert outcome.record.counts == {"kept": 80, "dropped": 1}
            assert outcome.record.parts == [file.problems for file in taken]
    table = pq.read_table(runner.store.path(outcome.record, "lessons.parquet")).to_pylist()
    questions = [row["question"] for row in table if row["split"] == "stage1"]
    batches = ["much" in question for question in questions]
    assert batches == sorted(batches, reverse=True)  # the newest batch comes first
    assert {True, False} == set(batches)


def test_a_file_that_has_grown_brings_what_is_new_in_it(runner):
    put(runner, "grows.jsonl", *(f"How many {number}?" for number in range(20)))
    first = take_in(runner, Recipe(), "grows.jsonl")
    put(runner, "grows.jsonl", *(f"How many {number}?" for number in range(30)))
    second = take_in(runner, Recipe(), "grows.jsonl")
    recipe = night_recipe(Recipe(), [first.problems, second.problems], ModelRegistry(), 3)
    assert runner.run(problems.STEP, recipe, {}).record.counts == {"kept": 30, "dropped": 20}


def test_a_checkpoint_that_is_gone_is_told_with_the_way_out(runner):
    gone = Reference(kind="stage3", fingerprint="d" * 32)
    recipe = night_recipe(Recipe(), [gone], ModelRegistry().with_promotion(gone, "r", ""), 3)
    with pytest.raises(UserError, match=f"{gone} is not in the store .*cotpipe promote --undo"):
        runner.run(student.STEP, recipe, {})
