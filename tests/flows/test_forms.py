"""What a form may ask of a worker: neither its code nor its files, but for those put there for runs."""

from pathlib import Path
from typing import Any

import pytest

from cotpipe.errors import UserError
from cotpipe.recipe.model import Recipe
from cotpipe.settings import Settings
from cotpipe.store.artifacts import open_store
from flows.comparison import chosen_comparison
from flows.curriculum import chosen_recipe


@pytest.fixture
def worker(tmp_path, monkeypatch) -> Path:
    """A worker's machine, on which a deployment runs in `runs`, with recipes in `recipes`."""
    for name in ("runs", "recipes", "private"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.csv").write_text("User name,Secret\nada,hunter-two\n")
    (tmp_path / "runs" / "link.csv").symlink_to(tmp_path / "private" / "rows.csv")
    (tmp_path / "runs" / "linked").symlink_to(tmp_path / "private")
    monkeypatch.chdir(tmp_path / "runs")
    monkeypatch.setenv("COTPIPE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("COTPIPE_RECIPES", str(tmp_path / "recipes"))
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "a-deployment")
    return tmp_path


def chosen(**source: Any) -> Recipe:
    form = Recipe.model_validate({"problems": {"source": source}})
    return chosen_recipe(form, None, open_store(Settings()))


@pytest.mark.parametrize("path", ["rows.csv", "WORKER/runs/rows.csv", "WORKER/recipes/rows.csv"])
def test_a_form_may_name_the_files_of_its_run_and_of_the_recipes(worker, path):
    assert chosen(kind="file", path=path.replace("WORKER", str(worker)))


@pytest.mark.parametrize(
    "path",
    ["../private/rows.csv", "WORKER/private/rows.csv", "link.csv", "linked/rows.csv",
     "WORKER/recipes/../private/rows.csv", "WORKER/private/none.csv"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["path", "test_path"])
def test_a_form_reads_no_other_file_of_the_worker(worker, path, name):
    source = {"path": "rows.csv", name: path.replace("WORKER", str(worker))}
    with pytest.raises(UserError, match=r"in the worker's folder .*COTPIPE_RECIPES") as refused:
        chosen(kind="file", **source)
    assert "Secret" not in str(refused.value)


@pytest.mark.parametrize("dataset", ["WORKER/private", "../private", "linked"])
def test_a_folder_of_the_worker_is_no_data_set_of_the_hub(worker, dataset):
    with pytest.raises(UserError, match="not accepted in a form"):
        chosen(kind="hub", dataset=dataset.replace("WORKER", str(worker)))
    assert chosen(kind="hub", dataset="openai/gsm8k")


def test_a_form_names_no_code(worker):
    with pytest.raises(UserError, match="code of your own is not accepted in a form"):
        chosen_recipe(
            Recipe.model_validate({"problems": {"answers": {"kind": "mine.py:answers"}}}),
            None,
            open_store(Settings()),
        )


def test_a_recipe_of_the_workers_own_and_the_command_may_name_any_file(worker, monkeypatch):
    path = worker / "private" / "rows.csv"
    recipe = worker / "recipes" / "own.yaml"
    recipe.write_text(f"problems:\n  source:\n    kind: file\n    path: {path}\n")
    read = chosen_recipe(Recipe(), "own", open_store(Settings()))
    assert read.problems.source.local_paths() == [path]
    monkeypatch.delenv("PREFECT__RUNTIME__DEPLOYMENT__ID")
    assert chosen(kind="file", path=str(path))


COMPARISON = """\
name: own
recipe: demo
seeds: [1]
baseline: full
arms: {full: null, stage1: {stages: [stage1]}}
"""


def test_a_form_may_name_the_shipped_comparisons_and_those_of_the_worker_and_changes_nothing(
    worker, monkeypatch
):
    own, private = worker / "recipes" / "own.yaml", worker / "private" / "own.yaml"
    for path in (own, private):
        path.write_text(COMPARISON)
    assert chosen_comparison("curriculum", (), None).name == "curriculum"
    assert chosen_comparison("own", (), "renamed").name == "renamed"
    assert chosen_comparison("curriculum", (), None, "demo").name == "curriculum"
    with pytest.raises(UserError, match="recipe: .*neither a shipped recipe nor a file"):
        chosen_comparison("curriculum", (), None, str(private))
    with pytest.raises(UserError, match="neither a shipped comparison nor a file in the folder"):
        chosen_comparison(str(private), (), None)
    with pytest.raises(UserError, match="changes: not accepted in a form"):
        chosen_comparison("curriculum", ("student.model=own",), None)
    monkeypatch.delenv("PREFECT__RUNTIME__DEPLOYMENT__ID")
    assert chosen_comparison(str(private), ("seed=3",), None).name == "own"
