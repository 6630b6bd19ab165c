"""What a run would make, named before anything is run."""

from pathlib import Path

import pytest

from cotpipe.data.problems.files import FileSource
from cotpipe.recipe.files import load_recipe, shipped_recipes
from cotpipe.steps.curriculum import steps_of
from cotpipe.steps.plan import name_artifacts
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
