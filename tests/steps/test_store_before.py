"""Artifacts stay valid: a store that an earlier version has filled is reused whole."""

import json
import shutil
from pathlib import Path

import pytest

from cotpipe.recipe.files import load_recipe
from cotpipe.steps.plan import plan_run
from cotpipe.store.artifacts import Store
from cotpipe.store.storage import LocalStorage
from tests.helpers.store_before import BEFORE, RECIPES, names_of

NAMES = json.loads((BEFORE / "fingerprints.json").read_text())


@pytest.fixture(autouse=True)
def _beside_the_student(monkeypatch):
    monkeypatch.chdir(BEFORE)  # recipes count the student's path in the report


@pytest.mark.parametrize("name", RECIPES)
def test_artifacts_keep_their_names(name):
    assert names_of(name) == NAMES[name]


def test_a_plan_reuses_every_step_of_the_store(tmp_path):
    store = Store(LocalStorage(Path(shutil.copytree(BEFORE / "store", tmp_path / "store"))))
    planned = plan_run(load_recipe("recipe.yaml"), store)
    assert len(planned) == 16
    assert [step.kind for step in planned if not step.reused] == []
