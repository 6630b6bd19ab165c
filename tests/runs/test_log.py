"""The record of a run, and the recipes that are started from it."""

import pytest

from cotpipe.errors import UserError
from cotpipe.recipe.files import load_recipe


def test_a_recipe_is_started_from_a_name_a_file_or_a_run(tmp_path):
    from cotpipe.runs.log import RunLog, recipe_from
    from cotpipe.store.storage import LocalStorage

    storage = LocalStorage(tmp_path / "store")
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    assert recipe_from("demo", storage) == load_recipe("demo")
    assert recipe_from("mine", storage, tmp_path).name == "mine"
    log = RunLog(storage, load_recipe("demo", ["seed=99"]), suffix="0123abcd")
    log.plan([])
    assert recipe_from("last", storage).seed == recipe_from("0123abcd", storage).seed == 99
    with pytest.raises(
        UserError,
        match="'nobody' is not a shipped recipe .*, not a file in the folder of recipes .*, and no run is called",
    ):
        recipe_from("nobody", storage)


def test_a_run_that_is_tried_again_goes_on_with_its_record(tmp_path):
    from cotpipe.runs.log import RunLog, read_runs
    from cotpipe.store.records import Reference
    from cotpipe.store.storage import LocalStorage

    storage, recipe = LocalStorage(tmp_path), load_recipe("demo")
    stage1 = Reference(kind="stage1", fingerprint="1" * 32)
    log = RunLog(storage, recipe, suffix="0123abcd")
    assert log.left(["stage1", "stage2"]) == {"stage1", "stage2"}
    log.plan([stage1])
    log.step(stage1, reused=False, seconds=1.0)
    log.finish("failed", "a server was away")
    again = RunLog(storage, recipe, suffix="0123abcd")
    assert again.left(["stage1", "stage2"]) == {
        "stage2"
    }  # what it did again before it failed is done
    again.plan([stage1])
    again.finish("completed")
    (run,) = read_runs(storage)
    assert (run.outcome, run.error, run.run_id) == ("completed", None, log.run.run_id)
