"""What a night takes in, and what it trains on."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cotpipe.data.problems import Reading
from cotpipe.data.problems.files import FileSource
from cotpipe.data.problems.stored import StoredSource
from cotpipe.data.rows import Problem, Reject, read_rows, write_rows
from cotpipe.errors import UserError
from cotpipe.progress import Silent
from cotpipe.recipe.model import Recipe
from cotpipe.runs.inbox import list_inbox, put_back, take_out
from cotpipe.runs.nights import INBOX, batches_of, new_files, night_recipe, take_in
from cotpipe.runs.promotion import ModelRegistry, Night, Taken, read_registry, write_registry
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
    for number, name in enumerate(
        ["b.jsonl", "a.jsonl", ".hidden.jsonl", "notes.txt", "c.jsonl.part", "deep/d.csv"]
    ):
        put(runner, name, f"How many {number}?")
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


def test_content_decides_what_is_new(runner):
    put(runner, "a.jsonl", "How many?")
    registry = ModelRegistry(taken=[take_in(runner, Recipe(), "a.jsonl")])
    size = runner.store.storage.sizes(INBOX)
    put(runner, "a.jsonl", "How much?")  # corrected in place, and as long as before
    assert runner.store.storage.sizes(INBOX) == size
    assert list(new_files(runner.store.storage, registry)) == ["a.jsonl"]
    put(runner, "a.jsonl", "How many?")
    put(runner, "renamed.jsonl", "How many?")
    put(runner, "copied.jsonl", "How many?")
    assert list(new_files(runner.store.storage, registry)) == []


def test_a_file_is_taken_back_out_of_what_nights_train_on(runner):
    names = ("good.jsonl", "bad.jsonl")
    for name in names:
        put(runner, name, f"How many in {name}?")
    storage = runner.store.storage
    with pytest.raises(UserError, match="no file 'bad.jsonl' was taken in; those that were: none"):
        take_out(storage, "bad.jsonl")
    taken = [take_in(runner, Recipe(), name) for name in names]
    write_registry(storage, ModelRegistry(taken=taken))
    take_out(storage, "inbox/bad.jsonl")
    registry = read_registry(storage)
    assert [file.name for file in registry.taken if not file.out] == ["good.jsonl"]
    assert taken[1].problems in registry.references  # it can be put back
    assert list(new_files(storage, registry)) == []
    put(runner, "next.jsonl", "How many more?")
    assert [(file.name, file.state, file.num_problems) for file in list_inbox(runner.store)] == [
        ("good.jsonl", "taken in", 1), ("bad.jsonl", "taken out", 1), ("next.jsonl", "new", None),
    ]  # fmt: skip
    put(runner, "bad.jsonl", "How many, corrected?")
    assert list(new_files(storage, registry)) == ["bad.jsonl", "next.jsonl"]
    put_back(storage, "bad.jsonl")
    assert read_registry(storage).taken == taken


def test_a_file_that_is_put_back_is_no_newer_than_its_corrections(runner):
    names = ("first.jsonl", "corrected.jsonl")
    for name in names:
        put(runner, name, f"How many in {name}?")
    taken = [take_in(runner, Recipe(), name) for name in names]
    write_registry(runner.store.storage, ModelRegistry(taken=taken))
    take_out(runner.store.storage, "first.jsonl")
    put_back(runner.store.storage, "first.jsonl")
    assert read_registry(runner.store.storage).taken == taken  # the order is that of their age


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
            assert outcome.record.counts == {"kept": 80, "dropped": 1, "repeated question": 1}
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
    counts = runner.run(problems.STEP, recipe, {}).record.counts
    assert counts == {"kept": 30, "dropped": 20, "repeated question": 20}


def joined(runner, *batches: list[dict]) -> tuple[list[Problem], list[Reject]]:
    """The problems of a night that took in these files, one after the other, with their ids."""
    source = FileSource(path="unused", id_column="id")
    recipe = Recipe(problems=Recipe().problems.model_copy(update={"source": source}))
    taken = []
    for number, rows in enumerate(batches):
        path = Path(runner.settings.store, INBOX, f"{number}.jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        taken.append(take_in(runner, recipe, path.name).problems)
    record = runner.run(problems.STEP, night_recipe(recipe, taken, ModelRegistry(), 3), {}).record
    assert record.counts["kept"] + record.counts["dropped"] == sum(map(len, batches))
    kept = list(read_rows(runner.store.path(record, "problems.parquet"), Problem))
    return kept, list(read_rows(runner.store.path(record, "rejects.parquet"), Reject))


def row(number: int, question: str, answer: int = 7) -> dict:
    return {"id": number, "question": question, "answer": str(answer)}


def test_files_that_number_their_problems_anew_lose_none(runner):
    first = [row(number, f"How many {number}?") for number in range(5)]
    second = [row(number, f"How much {number}?") for number in range(5)]
    kept, dropped = joined(runner, first, second)
    assert not dropped
    assert len({problem.problem_id for problem in kept}) == 10
    assert [problem.problem_id for problem in kept[:5]] == ["0", "1", "2", "3", "4"]
    assert {problem.problem_id.split("@")[0] for problem in kept[5:]} == {"0", "1", "2", "3", "4"}


def test_a_corrected_answer_counts_and_is_told(runner):
    first = [row(0, "How many?", 7), row(1, "How much?", 8)]
    second = [row(5, "How many?", 9), row(1, "How much?", 8)]
    kept, dropped = joined(runner, first, second)
    # The question keeps its id, and so its split; the same row again is a repetition.
    assert [(one.problem_id, one.answer, one.batch) for one in kept] == [
        ("1", "8", 0),
        ("0", "9", 1),
    ]
    assert [(one.problem_id, one.reason) for one in dropped] == [
        ("0", "corrected answer"), ("1", "repeated question"),
    ]  # fmt: skip
    assert dropped[0].detail == "'7' in batch 0, corrected to '9'"


def test_a_correction_of_a_held_out_problem_stays_held_out(tmp_path):
    rows = {
        "a" * 32: [Problem("0", "How many?", "7", [], "test")],
        "b" * 32: [Problem("9", "How many?", "8", [])],
    }
    for name, problems_of_it in rows.items():
        write_rows(tmp_path / f"{name}.parquet", Problem, problems_of_it)
    reading = Reading(1, stored=lambda reference, _: tmp_path / f"{reference.fingerprint}.parquet")
    found = list(StoredSource(problems=tuple(rows)).read(reading))
    assert [
        (one.problem_id, one.answer, one.split) for one in found if isinstance(one, Problem)
    ] == [("0", "8", "test")]


def test_taking_a_file_out_changes_no_id_and_no_answer_of_the_others(tmp_path):
    first, second, third = ("a" * 32, "b" * 32, "c" * 32)
    rows = {
        first: [Problem(str(i), f"How many {i}?", "7", []) for i in range(4)],
        second: [Problem("0", "How many 0?", "100", [])]
        + [Problem(str(i), f"How much {i}?", "8", []) for i in range(1, 4)],
        third: [Problem("9", "How many 0?", "9", [])],
    }
    for name, problems_of_it in rows.items():
        write_rows(tmp_path / f"{name}.parquet", Problem, problems_of_it)
    reading = Reading(1, stored=lambda reference, _: tmp_path / f"{reference.fingerprint}.parquet")

    def found(*left_out: str) -> dict[str, tuple[str, str]]:
        read = StoredSource(problems=tuple(rows), left_out=left_out).read(reading)
        return {
            one.question: (one.problem_id, one.answer) for one in read if isinstance(one, Problem)
        }

    every = found()
    assert every["How many 0?"] == ("0", "9")
    assert every["How much 1?"] == (f"1@{second[:8]}", "8")
    left = {one.question for one in rows[second]}
    assert found(first) == {question: every[question] for question in every if question in left}
    assert found(third) == every | {"How many 0?": ("0", "100")}
    assert found(second, third) == {one.question: (one.problem_id, "7") for one in rows[first]}


def test_a_night_tells_the_problems_that_are_in_use_from_those_taken_out():
    own, good, bad = (Reference(kind="problems", fingerprint=digit * 32) for digit in "abc")
    taken = [
        Taken(name="bad.jsonl", sha256="1", problems=bad, out=True),
        Taken(name="good.jsonl", sha256="2", problems=good),
        Taken(name="copy-of-own.jsonl", sha256="3", problems=own, out=True),
    ]
    batches, left_out = batches_of(own, taken)
    recipe = night_recipe(Recipe(), batches, ModelRegistry(), 3, left_out)
    assert recipe.problems.source == StoredSource(
        problems=("a" * 32, "c" * 32, "b" * 32), left_out=("c" * 32,)
    )


def test_a_checkpoint_that_is_gone_is_told_with_the_way_out(runner):
    gone = Reference(kind="stage3", fingerprint="d" * 32)
    recipe = night_recipe(Recipe(), [gone], ModelRegistry().with_promotion(gone, "r", ""), 3)
    with pytest.raises(UserError, match=f"{gone} is not in the store .*cotpipe promote --undo"):
        runner.run(student.STEP, recipe, {})
