"""Shared by the tests of flows and commands: a store with two finished runs."""

import shutil
from pathlib import Path

import pytest

from cotpipe.recipe.files import load_recipe
from tests.helpers.flow_runs import TINY
from tests.helpers.sharing import once


@pytest.fixture(scope="session")
def stores(finished, tiny_student) -> str:
    """A copy of the store, with a second run of another recipe in it; to be read only."""

    def run_again(folder: Path) -> str:
        shutil.copytree(finished[0], folder / "store")
        from flows.curriculum import curriculum

        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("COTPIPE_STORE", str(folder / "store"))
            changes = [f"student.model={tiny_student}", "evaluation.max_problems=5"]
            curriculum(recipe=load_recipe(TINY, changes))
        return str(folder / "store")

    return once("stores", run_again)
