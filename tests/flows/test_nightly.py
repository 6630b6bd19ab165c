"""A simulated week of nights, with a student that learns one answer by heart: really trained, judged, promoted or not."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from flow_runs import assert_one_line_error, cotpipe

from cotpipe.config import Recipe
from cotpipe.leases import try_lease
from cotpipe.promotion import MODELS, read_models
from cotpipe.recipes import load_recipe
from cotpipe.runs import read_runs
from cotpipe.settings import Settings
from cotpipe.storage import LocalStorage
from cotpipe.store import open_store
from flows.nightly import nightly

pytestmark = pytest.mark.timeout(900)
STAGE1 = {
    "max_problems": 30, "num_epochs": 32, "learning_rate": 0.01, "warmup_steps": 5, "batch_size": 8, "micro_batch": 8,
    "max_length": 400, "masks": {"first_share": 1.0},
}  # fmt: skip
NOTHING = {"max_problems": 1}
"""Fewer problems than an optimizer step takes: the stage passes its checkpoint on."""


def problems(start: int, count: int, answer: int) -> str:
    rows = (
        {"question": f"Box {number}?", "answer": f"Box.\nNumber.\n#### {answer}"}
        for number in range(start, start + count)
    )
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def store(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("COTPIPE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("COTPIPE_CHECKPOINT_SECONDS", "0")
    (tmp_path / "store" / "inbox").mkdir(parents=True)
    return tmp_path / "store"


@pytest.fixture
def recipe(tmp_path, tiny_student) -> Recipe:
    (tmp_path / "base.jsonl").write_text(problems(0, 60, 7))
    values = {
        "name": "week", "student": {"model": str(tiny_student)},
        "problems": {
            "source": {"kind": "file", "path": str(tmp_path / "base.jsonl")}, "near_duplicate": 1.0,
            "splits": {"stage1": 0.6, "stage2": 0.05, "mining": 0.15, "validation": 0, "test": 0.2},
        },
        "stage1": STAGE1, "stage2": NOTHING, "stage3": NOTHING,
        "mining": {"num_samples": 1, "max_new_tokens": 48}, "evaluation": {"max_new_tokens": 48},
    }  # fmt: skip
    return Recipe.model_validate(values)


def night(recipe: Recipe) -> tuple[str, str]:
    state = nightly(recipe=recipe, accuracy_margin=0.3, token_margin=0.5, return_state=True)
    return state.name, state.message


def test_a_week_of_nights(prefect, store, recipe):
    storage = LocalStorage(store)

    # Monday: nothing is there.
    name, why = night(recipe)
    assert (name, "nothing new" in why) == ("Skipped", True)
    assert not (store / "problems").exists()

    # Tuesday: new problems; the student learns the answer from nothing.
    (store / "inbox" / "tuesday.jsonl").write_text(problems(100, 60, 7))
    name, why = night(recipe)
    assert name == "Promoted", why
    first = read_models(storage).promoted.checkpoint
    assert accuracy(store, "evaluation-stage3") == 1.0

    # Wednesday: a file that is still being written, and one that nobody knows.
    (store / "inbox" / "wednesday.jsonl").write_text(problems(200, 60, 8)[:-20])
    (store / "inbox" / "notes.txt").write_text("not for us")
    name, why = night(recipe)
    assert name == "Skipped"
    assert "wednesday.jsonl ends within a line" in why
    assert read_models(storage).promoted.checkpoint == first

    # Thursday: it is whole now, and its answers are wrong: the student gets worse at what it could do.
    (store / "inbox" / "wednesday.jsonl").write_text(problems(200, 60, 8))
    name, why = night(recipe)
    assert name == "Kept", why
    assert "may lose more than 30 points of accuracy" in why
    models = read_models(storage)
    assert models.promoted.checkpoint == first
    assert [one.promoted for one in models.nights] == [True, False]

    # Friday: nothing new; it costs seconds, and trains nothing.
    trained = len(list(store.glob("stage1/*/record.json")))
    assert night(recipe)[0] == "Skipped"
    assert len(list(store.glob("stage1/*/record.json"))) == trained

    # Saturday: new problems, and the night is killed in training; the next try goes on from its checkpoint.
    for path in (store / "inbox").glob("wednesday*"):
        path.unlink()
    forget_batch(storage, "wednesday.jsonl")
    (store / "inbox" / "saturday.jsonl").write_text(problems(300, 60, 7))
    kill_in_training(store, recipe)
    before = {path.name for path in store.glob("stage1/*/checkpoints/*.json")}
    assert before
    name, why = night(recipe)
    assert name == "Promoted", why
    models = read_models(storage)
    assert models.promoted.checkpoint != first
    last = next(run for run in read_runs(storage) if run.run_id == models.promoted.run_id)
    assert last.steps["problems"].reused or last.steps["rationales"].reused
    assert last.recipe["student"]["model"] == f"store:{first}"
    assert len(last.recipe["mining"]["history"]) == 2

    # Sunday: nothing new, and another night holds the turn.
    with try_lease(storage, MODELS, seconds=3):
        name, why = night(recipe)
        assert (name, "another night is under way" in why) == ("Skipped", True)
    assert night(recipe)[0] == "Skipped"

    promoted_by_hand(store, first)
    shutil.rmtree(store / str(read_models(storage).promoted.checkpoint))
    (store / "inbox" / "monday.jsonl").write_text(problems(400, 20, 7))
    name, why = night(recipe)
    assert name == "Failed"
    assert "cotpipe promote --undo" in why


def accuracy(store: Path, kind: str) -> float:
    import duckdb

    newest = max(store.glob(f"{kind}/*/*/evaluations.parquet"), key=lambda path: path.stat().st_mtime)
    return duckdb.sql(f"select avg(correct::int) from '{newest}'").fetchall()[0][0]


def forget_batch(storage: LocalStorage, name: str) -> None:
    """What an operator does with a file that turns out to be wrong: out of the inbox, and out of what was taken."""
    models = read_models(storage)
    kept = [file for file in models.taken if file.name != name]
    storage.replace(f"{MODELS}/promoted.json", models.model_copy(update={"taken": kept}).model_dump_json().encode())


def kill_in_training(store: Path, recipe: Recipe) -> None:
    (store / "night.json").write_text(recipe.model_dump_json())
    code = (
        "import sys; from cotpipe.config import Recipe; from flows.nightly import nightly\n"
        "recipe = Recipe.model_validate_json(open(sys.argv[1]).read())\n"
        "nightly(recipe=recipe, accuracy_margin=0.3, token_margin=0.5)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(store / "night.json")], start_new_session=True)
    from stacks import polls

    for _ in polls(180):
        assert process.poll() is None, "it ended before it could be killed"
        if list(store.glob("stage1/*/checkpoints/*.json")):
            break
    process.send_signal(signal.SIGKILL)
    process.wait()


def promoted_by_hand(store: Path, first) -> None:
    """`promote --undo` brings the one before back; a run can be promoted by its id."""
    at = ["--store", str(store)]
    storage = LocalStorage(store)
    last = read_models(storage).promoted
    done = cotpipe("promote", "--undo", *at)
    assert done.returncode == 0, done.stderr
    assert read_models(storage).promoted.checkpoint == first
    done = cotpipe("promote", last.run_id, *at)
    assert done.returncode == 0, done.stderr
    assert read_models(storage).promoted.checkpoint == last.checkpoint
    assert [one.why for one in read_models(storage).undone] == [last.why]
    assert_one_line_error(cotpipe("promote", "nobody", *at), 2, "no run is called 'nobody'")
    gc = cotpipe("gc", "--keep-runs", "0", *at)
    assert gc.returncode == 0, gc.stderr
    assert open_store(Settings(store=str(store))).find(last.checkpoint)
    assert (store / "inbox" / "tuesday.jsonl").exists()


def test_what_is_promoted_can_be_started_from(tmp_path):
    assert_one_line_error(cotpipe("promote", "--undo", "--store", str(tmp_path)), 2, "nothing is promoted")
    recipe = load_recipe("demo", ["student.model=store:stage3/xyz"])
    assert recipe.student.model == "store:stage3/xyz"
    done = cotpipe("run", "--set", "student.model=store:stage3/xyz", "--store", str(tmp_path))
    assert_one_line_error(done, 2, "names no checkpoint")
