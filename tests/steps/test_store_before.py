"""Artifacts stay valid: a store that an earlier version has filled is reused whole."""

import json
import shutil
from pathlib import Path

import pytest

from cotpipe.recipe.files import load_recipe
from cotpipe.runs.log import find_run
from cotpipe.steps.plan import name_artifacts, plan_run
from cotpipe.store.artifacts import Store
from cotpipe.store.storage import LocalStorage
from tests.helpers.flow_runs import cotpipe

BEFORE = Path(__file__).parents[1] / "store_before"
NAMES = json.loads((BEFORE / "fingerprints.json").read_text())
F = "f" * 32
RECIPES = {
    "demo": ("demo", []),
    "published": ("gsm8k-qwen2.5-3b", []),
    "served teacher": (
        "gsm8k-qwen2.5-3b",
        [
            "teacher.engine=openai",
            "teacher.model=Qwen/Qwen2.5-72B-Instruct",
            "teacher.template_options={enable_thinking: false}",
        ],
    ),
    "local teacher": ("gsm8k-qwen2.5-3b", ["teacher.model=./student", "student.model=./student"]),
    "a file": (
        "gsm8k-smollm2-cpu",
        ["problems.source.path=problems.jsonl", "problems.source.test_path=problems.jsonl"],
    ),
    "a generator": ("demo", ["problems.source={kind: reasoning_gym, num_problems: 7}"]),
    "a night": (
        "demo",
        [
            f"problems.source={{kind: stored, problems: [{F}]}}",
            f"student.model=store:stage3/{F}",
            f"mining.history=[{F}]",
        ],
    ),
    "other stages": (
        "demo",
        [
            "stage1.examples.masks.kind=critical",
            "stage1.examples.num_epochs=3",
            "stage2.trainer.lora={rank: 4}",
            "stage2.trainer.reward.length_unit=tokens",
            "stage2.trainer.kl=0.1",
            "stage3.examples.last_hint_share=0.2",
            "stage3.trainer.learning_rate=1e-6",
            "seed=3",
        ],
    ),
}


@pytest.fixture(autouse=True)
def _beside_the_student(monkeypatch):
    monkeypatch.chdir(BEFORE)  # recipes count the student's path in the report


@pytest.mark.parametrize("name", NAMES)
def test_artifacts_keep_their_names(name, tmp_path):
    recipe, overrides = RECIPES[name]
    named = name_artifacts(load_recipe(recipe, overrides), Store(LocalStorage(tmp_path)))
    assert {kind: reference.fingerprint for kind, reference in named.items()} == NAMES[name]


def test_a_plan_reuses_every_step_of_the_store(tmp_path):
    store = Store(LocalStorage(Path(shutil.copytree(BEFORE / "store", tmp_path / "store"))))
    planned = plan_run(load_recipe("recipe.yaml"), store)
    assert len(planned) == 16
    assert [step.kind for step in planned if not step.reused] == []


def test_a_run_reuses_the_store_whole_and_its_earlier_run_can_be_read(tmp_path):
    store = Path(shutil.copytree(BEFORE / "store", tmp_path / "store"))
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}
    done = cotpipe("run", "--recipe", "recipe.yaml", "--store", str(store))
    assert done.returncode == 0, done.stderr
    run = find_run(LocalStorage(store), "last")
    assert len(run.steps) == 16
    assert all(step.reused for step in run.steps.values())
    assert (
        before.items()
        <= {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}.items()
    )
    (earlier,) = (BEFORE / "store" / "runs").iterdir()
    shown = cotpipe("show", earlier.stem, "--store", str(store))
    assert shown.returncode == 0, shown.stderr
    assert "stage 3 against stage 2" in shown.stdout
