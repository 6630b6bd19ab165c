"""What a run would make, named before anything is run."""

from pathlib import Path

import pytest

from cotpipe.data.problems.files import FileSource
from cotpipe.progress import Silent
from cotpipe.recipe.files import load_recipe, shipped_recipes
from cotpipe.settings import Settings
from cotpipe.steps.curriculum import steps_of
from cotpipe.steps.plan import left_to_refresh, name_artifacts
from cotpipe.steps.runner import StepRunner
from cotpipe.store.artifacts import Store
from cotpipe.store.storage import LocalStorage


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_names_an_artifact_for_each_of_its_steps(name, tmp_path, monkeypatch):
    recipe = load_recipe(name)
    if isinstance(recipe.problems.source, FileSource):
        monkeypatch.chdir(tmp_path)  # a path in a recipe is that of a file the user brings
        Path(recipe.problems.source.path).parent.mkdir(parents=True)
        Path(recipe.problems.source.path).write_text('{"question": "1 + 1?", "answer": "2"}\n')
    named = name_artifacts(recipe, Store(LocalStorage(tmp_path / "store")))
    assert {kind: reference.kind for kind, reference in named.items()} == {
        kind: kind for kind in steps_of(recipe)
    }
    assert len({reference.fingerprint for reference in named.values()}) == len(named)


def test_a_run_that_died_after_a_refresh_does_not_refresh_again_when_it_is_retried(tmp_path):
    recipe = load_recipe("demo", ["problems.source.num_problems=5"])
    store, refresh = Store(LocalStorage(tmp_path)), ["problems"]
    runner, step = StepRunner(store, Settings(), Silent()), steps_of(recipe)["problems"]
    runner.run(step, recipe, {})
    assert left_to_refresh(recipe, store, refresh, {}) == {"problems"}
    planned = name_artifacts(recipe, store, refresh)
    assert left_to_refresh(recipe, store, refresh, planned) == {"problems"}  # not begun yet
    made = runner.run(step, recipe, {}, refresh=True)  # the run dies before it writes that down
    assert made.reference == planned["problems"]
    assert left_to_refresh(recipe, store, refresh, planned) == set()
    assert name_artifacts(recipe, store) == planned
    assert left_to_refresh(recipe, store, refresh, {}) == {"problems"}  # another run's refresh
