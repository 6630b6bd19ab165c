"""A simulated week of nights, with a student that learns one answer by heart: really trained, judged, promoted or not."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cotpipe.recipe.files import load_recipe
from cotpipe.recipe.model import Recipe
from cotpipe.runs.collection import collect_garbage
from cotpipe.runs.garbage import find_garbage
from cotpipe.runs.log import read_runs
from cotpipe.runs.promotion import (
    REGISTRY,
    ModelRegistry,
    Night,
    Promotion,
    read_registry,
    write_night,
    write_registry,
)
from cotpipe.settings import Settings
from cotpipe.store.artifacts import open_store
from cotpipe.store.leases import Contender
from cotpipe.store.records import Reference
from cotpipe.store.storage import LocalStorage
from flows.nightly import nightly
from tasks.nights import decide
from tests.helpers.flow_runs import assert_one_line_error, cotpipe
from tests.helpers.polling import polls

STAGES = [
    {
        "name": "stage1",
        "examples": {
            "task": "reconstruction", "max_problems": 30, "num_epochs": 48, "masks": {"first_share": 1.0},
        },
        "trainer": {
            "kind": "sft", "learning_rate": 0.01, "warmup_steps": 5, "batch_size": 8, "micro_batch": 8,
            "max_length": 400,
        },
    },
    # Fewer problems than an optimizer step takes: these stages pass their checkpoint on.
    {"name": "stage2", "examples": {"task": "completion", "max_problems": 1}, "trainer": {"kind": "grpo"}},
    {"name": "stage3", "examples": {"task": "rewriting", "max_problems": 1}, "trainer": {"kind": "grpo"}},
]  # fmt: skip


def problems(start: int, count: int, answer: int) -> str:
    rows = (
        {"question": f"Box {number:03}?", "answer": f"Box.\nNumber.\n#### {answer}"}
        for number in range(start, start + count)
    )
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def store(prefect, tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PREFECT_API_URL", prefect)
    monkeypatch.setenv("COTPIPE_STORE", str(tmp_path / "store"))
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
        "stages": STAGES,
        "mining": {"num_samples": 1, "max_new_tokens": 48}, "evaluation": {"max_new_tokens": 48},
    }  # fmt: skip
    return Recipe.model_validate(values)


def night(recipe: Recipe, **changes: Any) -> tuple[str, str]:
    """A night on some thirty held-out problems, which can decide with margins as wide as these."""
    margins = {"accuracy_margin": 0.3, "token_margin": 0.5}
    state = nightly(recipe=recipe, return_state=True, **(margins | changes))
    return str(state.name), str(state.message)


def test_a_night_with_too_few_held_out_problems_says_so_before_it_trains(store, recipe, caplog):
    gone = Reference(kind="stage3", fingerprint="0" * 32)  # so this night ends before it trains
    write_registry(LocalStorage(store), ModelRegistry().with_promotion(gone, "r", ""))
    (store / "inbox" / "monday.jsonl").write_text(problems(100, 60, 7))
    logging.getLogger("prefect.flow_runs").addHandler(caplog.handler)
    name, why = night(recipe, accuracy_margin=0.02)
    assert (name, "is not in the store" in why) == ("Failed", True)
    assert "This night will promote nothing" in caplog.text
    assert "equal checkpoints pass from 189 on" in caplog.text


def test_a_week_of_nights(store, recipe, monkeypatch):
    first = from_monday_to_friday(store, recipe)
    second = on_saturday(store, recipe, first, monkeypatch)
    assert second.checkpoint != first
    on_sunday(store, recipe)
    promoted_by_hand(store, first)
    shutil.rmtree(store / str(read_registry(LocalStorage(store)).promoted.checkpoint))
    (store / "inbox" / "monday.jsonl").write_text(problems(400, 20, 7))
    name, why = night(recipe)
    assert name == "Failed"
    assert "cotpipe promote --undo" in why


def from_monday_to_friday(store: Path, recipe: Recipe) -> Reference:
    """The first checkpoint is promoted and stays so; returns it."""
    storage = LocalStorage(store)

    # Monday: nothing is there.
    name, why = night(recipe)
    assert (name, "nothing new" in why) == ("Skipped", True)
    assert not (store / "problems").exists()

    # Tuesday: new problems; the student learns the answer from nothing.
    (store / "inbox" / "tuesday.jsonl").write_text(problems(100, 60, 7))
    name, why = night(recipe)
    assert name == "Promoted", why
    first = read_registry(storage).promoted.checkpoint
    assert accuracy(store, "evaluation-stage3") > 0.7  # it was 0; how near 1 depends on the CPU

    # Wednesday: a file that is still being written, and one that nobody knows.
    (store / "inbox" / "wednesday.jsonl").write_text(problems(200, 60, 8)[:-20])
    (store / "inbox" / "notes.txt").write_text("not for us")
    name, why = night(recipe)
    assert name == "Skipped"
    assert "wednesday.jsonl does not end with a newline" in why
    assert len(read_runs(storage)) == 1  # a night with nothing to do leaves no record
    assert read_registry(storage).promoted.checkpoint == first

    # Thursday: it is whole now, and its answers are wrong: the student gets worse at what it could do.
    (store / "inbox" / "wednesday.jsonl").write_text(problems(200, 60, 8))
    name, why = night(recipe)
    assert name == "Kept", why
    assert "may lose more than 30 points of accuracy" in why
    registry = read_registry(storage)
    assert registry.promoted.checkpoint == first
    assert [one.promoted for one in registry.nights] == [True, False]

    # Friday: nothing new; it costs seconds, and trains nothing.
    trained = len(list(store.glob("stage1/*/record.json")))
    assert night(recipe)[0] == "Skipped"
    assert len(list(store.glob("stage1/*/record.json"))) == trained
    return first


def on_saturday(
    store: Path, recipe: Recipe, first: Reference, monkeypatch: pytest.MonkeyPatch
) -> Promotion:
    """New problems, and the night is killed in training; the next try goes on from its training state."""
    storage = LocalStorage(store)
    for path in (store / "inbox").glob("wednesday*"):
        path.unlink()
    done = cotpipe("inbox", "--take-out", "wednesday.jsonl", "--store", str(store))
    assert done.returncode == 0, done.stderr
    assert "taken out" in done.stdout
    (store / "inbox" / "saturday.jsonl").write_text(problems(300, 60, 7))
    kill_in_training(store, recipe)
    before = {path.name for path in store.glob("stage1/*/training-state/*.json")}
    assert before
    student = f"store:{read_runs(storage)[0].references['student']}"
    with monkeypatch.context() as patch:
        patch.setattr("flows.nightly.decide", decide_beside_gc)
        name, why = night(recipe, anchor=student)
    assert name == "Promoted", why
    assert "against the promoted checkpoint: accuracy" in why
    assert f"against the anchor {student}: accuracy" in why
    registry = read_registry(storage)
    last = next(run for run in read_runs(storage) if run.run_id == registry.promoted.run_id)
    assert last.steps["problems"].reused or last.steps["rationales"].reused
    assert last.recipe["student"]["model"] == f"store:{first}"
    assert len(last.recipe["mining"]["history"]) == 2
    assert registry.promoted
    return registry.promoted


def decide_beside_gc(*arguments: Any, **options: Any) -> Any:
    """`decide`, after two `gc` that remove at once whatever no live run names."""
    store = open_store(Settings())
    assert read_runs(store.storage)[-1].outcome == "running"
    for _ in range(2):
        look, garbage = find_garbage(store, keep_runs=0, grace=0)
        collect_garbage(store, look, garbage)
    _, artifacts, last, taken, compared, *_ = arguments
    for one in (artifacts[last], *compared.values(), *(file.problems for file in taken)):
        assert store.find(one), one
    return decide(*arguments, **options)


def on_sunday(store: Path, recipe: Recipe) -> None:
    """Nothing new, and another night holds the turn."""
    with Contender(LocalStorage(store), REGISTRY, seconds=3).try_lease():
        name, why = night(recipe)
        assert (name, "another nightly run is in progress" in why) == ("Skipped", True)
    assert night(recipe)[0] == "Skipped"


def accuracy(store: Path, kind: str) -> float:
    import duckdb

    newest = max(
        store.glob(f"{kind}/*/*/evaluations.parquet"), key=lambda path: path.stat().st_mtime
    )
    return duckdb.sql(f"select avg(correct::int) from '{newest}'").fetchall()[0][0]


def kill_in_training(store: Path, recipe: Recipe) -> None:
    (store / "night.json").write_text(recipe.model_dump_json())
    code = (
        "import sys; from cotpipe.recipe.model import Recipe; from flows.nightly import nightly\n"
        "recipe = Recipe.model_validate_json(open(sys.argv[1]).read())\n"
        "nightly(recipe=recipe, accuracy_margin=0.3, token_margin=0.5)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(store / "night.json")],
        start_new_session=True,
        env=os.environ | {"COTPIPE_TRAINING_STATE_SECONDS": "0"},
    )
    for _ in polls():
        assert process.poll() is None, "it ended before it could be killed"
        if list(store.glob("stage1/*/training-state/*.json")):
            break
    process.send_signal(signal.SIGKILL)
    process.wait()


def promoted_by_hand(store: Path, first) -> None:
    """`promote --undo` brings the one before back; a run can be promoted by its id."""
    at = ["--store", str(store)]
    storage = LocalStorage(store)
    last = read_registry(storage).promoted
    done = cotpipe("promote", "--undo", *at)
    assert done.returncode == 0, done.stderr
    assert read_registry(storage).promoted.checkpoint == first
    done = cotpipe("promote", last.run_id, *at)
    assert done.returncode == 0, done.stderr
    assert read_registry(storage).promoted.checkpoint == last.checkpoint
    assert [one.why for one in read_registry(storage).undone] == [last.why]
    assert_one_line_error(cotpipe("promote", "nobody", *at), 2, "no run is called 'nobody'")
    gc = cotpipe("gc", "--keep-runs", "0", *at)
    assert gc.returncode == 0, gc.stderr
    assert open_store(Settings(store=str(store))).find(last.checkpoint)
    assert (store / "inbox" / "tuesday.jsonl").exists()


def test_a_night_that_is_retried_after_it_was_written_down_keeps_what_was_written(
    store, recipe, monkeypatch
):
    storage, candidate = LocalStorage(store), Reference(kind="stage3", fingerprint="1" * 32)
    for run_id, promoted, start in (
        ("20260101-020000-0123abcd", True, None),
        ("20260102-020000-4567abcd", False, candidate),
    ):
        written = Night(
            run_id=run_id, mining=None, candidate=candidate, promoted=promoted, why="so it was"
        )
        registry = write_night(storage, written, [], start)
    (store / "inbox" / "late.jsonl").write_text(problems(100, 60, 7))
    for suffix, name in (("0123abcd", "Promoted"), ("4567abcd", "Kept")):
        monkeypatch.setattr("flows.nightly.run_suffix", lambda suffix=suffix: suffix)
        assert night(recipe) == (name, "so it was")
    assert read_registry(storage) == registry  # the late file is left for the next night
    assert not list(store.glob("stage1/*"))


def test_a_broken_registry_ends_the_night_and_is_restored_by_a_command(store, recipe):
    storage, candidate = LocalStorage(store), Reference(kind="stage3", fingerprint="1" * 32)
    before = ModelRegistry().with_promotion(candidate, "by-hand", "")
    write_registry(storage, before)
    write_registry(storage, before.with_promotion(candidate, "again", ""))
    (store / REGISTRY / "promoted.json").write_text("")
    (store / "inbox" / "new.jsonl").write_text(problems(100, 60, 7))
    name, why = night(recipe)
    assert name == "Failed"
    assert "cotpipe promote --restore" in why
    assert not list(store.glob("stage1/*"))
    done = cotpipe("promote", "--restore", "--store", str(store))
    assert done.returncode == 0, done.stderr
    assert read_registry(storage) == before


def test_what_is_promoted_can_be_started_from(tmp_path):
    assert_one_line_error(
        cotpipe("promote", "--undo", "--store", str(tmp_path)), 2, "nothing is promoted"
    )
    recipe = load_recipe("demo", ["student.model=store:stage3/xyz"])
    assert recipe.student.model == "store:stage3/xyz"
    done = cotpipe("run", "--set", "student.model=store:stage3/xyz", "--store", str(tmp_path))
    assert_one_line_error(done, 2, "is not a checkpoint")
