"""What a night takes in, what it trains on, and which failures it holds for persistent."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cotpipe.config import Recipe
from cotpipe.curriculum import STEPS
from cotpipe.errors import UserError
from cotpipe.nights import INBOX, new_files, night_recipe, take_in
from cotpipe.promotion import Models, Night, Taken
from cotpipe.records import Reference
from cotpipe.rows import Answered, write_rows
from cotpipe.settings import Settings
from cotpipe.steps.answer import _persistent
from cotpipe.steps.step import Silent, StepRunner
from cotpipe.store import open_store

ROW = {"question": "How many?", "answer": "One and one.\nThat is two.\n#### 2"}


@pytest.fixture
def runner(tmp_path) -> StepRunner:
    settings = Settings(store=str(tmp_path / "store"))
    return StepRunner(open_store(settings), settings, Silent())


def put(runner: StepRunner, name: str, *questions: str, end: str = "\n") -> None:
    path = Path(runner.settings.store, INBOX, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(ROW | {"question": question}) for question in questions) + end)


def test_new_files_are_those_that_no_night_has_taken(runner):
    for name in ("b.jsonl", "a.jsonl", ".hidden.jsonl", "notes.txt", "c.jsonl.part", "deep/d.csv"):
        put(runner, name, "How many?")
    assert list(new_files(runner.store.storage, Models())) == ["a.jsonl", "b.jsonl", "deep/d.csv"]
    taken = take_in(runner, Recipe(), "a.jsonl")
    models = Models(taken=[taken])
    assert list(new_files(runner.store.storage, models)) == ["b.jsonl", "deep/d.csv"]
    put(runner, "a.jsonl", "How many?", "And now?")  # it has grown
    assert "a.jsonl" in new_files(runner.store.storage, models)


@pytest.mark.parametrize(
    ("name", "end", "part"),
    [
        ("half.jsonl", "", "inbox/half.jsonl ends within a line"),
        ("half.jsonl", '\n{"question": "Wh\n', "inbox/half.jsonl, line 2: broken JSON"),
        ("half.parquet", "", "inbox/half.parquet: cannot be read as parquet"),
        ("half.csv", "", "inbox/half.csv ends within a line"),
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
    nights = [Night(run_id="r", mining=mining, candidate=checkpoint, promoted=True, why="") for mining in minings]
    models = Models(nights=nights).with_promotion(checkpoint, "r", "")
    for history, remembered in ((1, 0), (2, 1), (3, 2), (9, 4)):
        recipe = night_recipe(Recipe(), batches, models, history)
        assert recipe.student.model == f"store:{checkpoint}"
        assert recipe.problems.source.problems == ("a" * 32, "b" * 32)
        assert recipe.mining.history == tuple(one.fingerprint for one in minings[4 - remembered :])
    assert night_recipe(Recipe(), batches, Models(), 3).student == Recipe().student


def test_batches_are_joined_newest_first_and_repeated_questions_stay_with_the_first(runner):
    put(runner, "one.jsonl", *(f"How many {number}?" for number in range(40)))
    put(runner, "two.jsonl", "How many 3?", *(f"How much {number}?" for number in range(40)))
    taken: list[Taken] = [take_in(runner, Recipe(), name) for name in ("one.jsonl", "two.jsonl")]
    recipe = night_recipe(Recipe(), [file.problems for file in taken], Models(), 3)
    found = {}
    for kind in ("problems", "rationales", "lessons"):
        outcome = runner.run(STEPS[kind], recipe, {name: found[name] for name in STEPS[kind].inputs})
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
    recipe = night_recipe(Recipe(), [first.problems, second.problems], Models(), 3)
    assert runner.run(STEPS["problems"], recipe, {}).record.counts == {"kept": 30, "dropped": 20}


def test_a_checkpoint_that_is_gone_is_told_with_the_way_out(runner):
    gone = Reference(kind="stage3", fingerprint="d" * 32)
    recipe = night_recipe(Recipe(), [gone], Models().with_promotion(gone, "r", ""), 3)
    with pytest.raises(UserError, match=f"{gone} is not in the store .*cotpipe promote --undo"):
        runner.run(STEPS["student"], recipe, {})


def answered(*verdicts: tuple[str, bool]) -> list[Answered]:
    return [
        Answered(problem_id, number, "q", "1", "", None, correct, True, 1, False)
        for number, (problem_id, correct) in enumerate(verdicts)
    ]


def test_a_failure_is_persistent_where_the_earlier_minings_that_asked_it_agree(tmp_path):
    tables = {
        "now": answered(("always", False), ("always", False), ("once", False), ("new", False), ("well", True)),
        "before": answered(("always", False), ("once", True), ("gone", False)),
        "long ago": answered(("always", False), ("well", False)),
    }
    paths = []
    for name, rows in tables.items():
        paths.append(tmp_path / f"{name}.parquet")
        write_rows(paths[-1], Answered, rows)
    assert _persistent(paths[0], paths[1:], 0.0) == [("always", 2, 0), ("new", 1, 0)]
    assert _persistent(paths[0], [], 0.0) == [("always", 2, 0), ("new", 1, 0), ("once", 1, 0)]
