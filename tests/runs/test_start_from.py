"""What a form may name as the recipe to start from: known folders only, and no content in errors."""

import os
from pathlib import Path

import pytest

from cotpipe.errors import UserError
from cotpipe.recipe.files import SHIPPED, load_recipe
from cotpipe.runs.log import RunLog, recipe_from
from cotpipe.store.storage import LocalStorage, Storage
from tests.helpers.repository import ROOT

SECRET = "hunter2"
PRIVATE = f"[default]\naws_secret_access_key: {SECRET}: {SECRET}\n\t{SECRET}\n"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """The storage of a store with one run, of the recipe `earlier`."""
    storage = LocalStorage(tmp_path / "store")
    RunLog(storage, load_recipe("demo", ["name=earlier"]), "0123abcd").finish("completed")
    return storage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "mine.yaml").write_text("name: mine")
    (tmp_path / "private.yaml").write_text(PRIVATE)
    (folder / "notes.txt").write_text(PRIVATE)
    (folder / "link.yaml").symlink_to(tmp_path / "private.yaml")
    return folder


@pytest.mark.parametrize("name", ["mine", "mine.yaml", "ABSOLUTE/recipes/mine.yaml"])
def test_a_recipe_of_the_workers_folder_is_found_by_its_name(storage, folder, name, tmp_path):
    found = recipe_from(name.replace("ABSOLUTE", str(tmp_path)), storage, folder)
    assert found.name == "mine"


def test_shipped_recipes_and_runs_are_found_without_a_folder(storage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").write_text("name: planted")  # a file of the same name is not taken for it
    assert recipe_from("demo", storage).name == "demo"
    assert recipe_from("last", storage).name == "earlier"


@pytest.mark.parametrize(
    "name",
    [
        "ABSOLUTE/private.yaml", "../private.yaml", "link", "link.yaml", "notes.txt", "/etc/passwd", "~/.netrc",
        "../recipes/../private.yaml", "recipes/mine.yaml", ".", "..", "/proc/self/environ",
    ],
)  # fmt: skip
def test_no_other_file_of_the_worker_is_read(storage, folder, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for known in (folder, None):
        with pytest.raises(UserError, match="is not a shipped recipe") as refused:
            recipe_from(name.replace("ABSOLUTE", str(tmp_path)), storage, known)
        assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        PRIVATE.encode(), f"{SECRET}: [".encode(), f"a: b\n{SECRET}".encode(), SECRET.encode() + b"\xff",
        f"seed: {SECRET * 10}".encode(), f"- {SECRET}".encode(), f"'{SECRET}".encode(), f"%{SECRET}".encode(),
    ],
)  # fmt: skip
def test_errors_about_a_file_say_where_and_quote_nothing(content, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"recipe\.yaml") as refused:
        load_recipe(str(path))
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None  # which a traceback would show
    assert refused.value.__context__ is None or refused.value.__suppress_context__


def test_an_invalid_file_is_named_with_line_and_column(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("name: mine\nstages: [\n")
    with pytest.raises(UserError, match="recipe.yaml, line 3, column 1: not valid YAML"):
        load_recipe(str(path))


def test_the_shipped_folder_leads_nowhere_else(storage):
    outside = os.path.relpath(ROOT / "tests" / "store_before" / "recipe.yaml", SHIPPED)
    with pytest.raises(UserError, match="is not a shipped recipe"):
        recipe_from(outside, storage)
