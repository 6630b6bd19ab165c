import pytest

from cotpipe.errors import UserError
from cotpipe.recipes import load_recipe, shipped_recipes


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_loads(name):
    assert load_recipe(name).name == name


def test_overrides_win():
    recipe = load_recipe("demo", ["stage2.learning_rate=2e-6", "problems.source.num_problems=50", "name=mine"])
    assert (recipe.stage2.learning_rate, recipe.problems.source.num_problems, recipe.name) == (2e-6, 50, "mine")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stage2.learning_rat=1", "stage2.learning_rat: unknown key"),
        ("nonsense=1", "nonsense: unknown key"),
        ("stage2.group_size=1", "stage2.group_size: .*greater than or equal to 2.*got 1"),
        ("problems.source.kind=floppy", "problems.source: .*floppy"),
        ("stage1.batch_size=7", "stage1: batch_size .7. is not a multiple of micro_batch"),
        ("problems.splits.test=0.9", "problems.splits: the shares of the splits must add up to 1"),
        ("stage2", "write it as section.field=value"),
        ("name.x=1", "'name' is a value, not a section"),
        ("seed=[1", "not valid YAML"),
    ],
)
def test_mistakes_name_the_key(override, message):
    with pytest.raises(UserError, match=message):
        load_recipe("demo", [override])


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(UserError, match="no shipped recipe of that name .*demo"):
        load_recipe("nothing")
    broken = tmp_path / "broken.yaml"
    broken.write_text("stage1: [")
    with pytest.raises(UserError, match=r"broken.yaml: not valid YAML"):
        load_recipe(str(broken))
    broken.write_text("- 1")
    with pytest.raises(UserError, match="mapping of sections"):
        load_recipe(str(broken))


def test_every_field_has_a_description():
    from cotpipe.config import Recipe

    def fields(schema):
        for name, definition in schema.get("$defs", {}).items():
            for key, value in definition.get("properties", {}).items():
                if key != "kind":
                    yield f"{name}.{key}", value
        for key, value in schema["properties"].items():
            yield key, value

    missing = [name for name, value in fields(Recipe.model_json_schema()) if not value.get("description")]
    assert missing == []


def test_a_form_changes_what_is_not_at_its_default_and_a_source_as_a_whole():
    from cotpipe.config import Recipe
    from cotpipe.recipes import with_changes

    demo = load_recipe("demo")
    assert with_changes(demo, Recipe()) == demo
    masks = Recipe().stage2.masks.model_dump() | {"kind": "critical", "ramp": 0.5}
    form = Recipe.model_validate({"name": "mine", "stage1": {"lora": {"rank": 4}}, "stage2": {"masks": masks}})
    changed = with_changes(demo, form)
    assert (changed.name, changed.stage1.lora.rank) == ("mine", 4)
    assert changed.stage2.masks == demo.stage2.masks.model_copy(update={"kind": "critical", "ramp": 0.5})
    source = {"kind": "file", "path": "x.jsonl"}
    changed = with_changes(demo, Recipe.model_validate({"problems": {"source": source}}))
    assert changed.problems.source.model_dump()["path"] == "x.jsonl"
    assert changed.problems.splits == demo.problems.splits
    with pytest.raises(UserError, match="the form does not fit the recipe 'demo': .*micro_batch"):
        with_changes(demo, Recipe.model_validate({"stage1": {"micro_batch": 16}}))


def test_the_names_of_steps_are_those_of_the_steps():
    from typing import get_args

    from cotpipe.curriculum import STEPS, StepName
    from flows.curriculum import CURRICULUM

    assert set(get_args(StepName)) == set(STEPS)
    assert list(CURRICULUM) == list(get_args(StepName))
    for number, kind in enumerate(CURRICULUM):
        assert set(STEPS[kind].inputs) <= set(list(CURRICULUM)[:number])


def test_a_recipe_is_started_from_a_name_a_file_or_a_run(tmp_path):
    from cotpipe.runs import RunLog, recipe_from
    from cotpipe.storage import LocalStorage

    storage = LocalStorage(tmp_path / "store")
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\n")
    assert recipe_from("demo", storage) == load_recipe("demo")
    assert recipe_from(str(path), storage).name == "mine"
    log = RunLog(storage, load_recipe("demo", ["seed=99"]), suffix="0123abcd")
    log.plan([])
    assert recipe_from("last", storage).seed == recipe_from("0123abcd", storage).seed == 99
    with pytest.raises(
        UserError, match="'nobody' is no shipped recipe .*, no file on this machine, and no run is called"
    ):
        recipe_from("nobody", storage)


def test_a_run_that_is_tried_again_goes_on_with_its_record(tmp_path):
    from cotpipe.records import Reference
    from cotpipe.runs import RunLog, read_runs
    from cotpipe.storage import LocalStorage

    storage, recipe = LocalStorage(tmp_path), load_recipe("demo")
    stage1 = Reference(kind="stage1", fingerprint="1" * 32)
    log = RunLog(storage, recipe, suffix="0123abcd")
    assert log.left(["stage1", "stage2"]) == {"stage1", "stage2"}
    log.plan([stage1])
    log.step(stage1, reused=False, seconds=1.0)
    log.finish("failed", "a server was away")
    again = RunLog(storage, recipe, suffix="0123abcd")
    assert again.left(["stage1", "stage2"]) == {"stage2"}  # what it did again before it failed is done
    again.plan([stage1])
    again.finish("completed")
    (run,) = read_runs(storage)
    assert (run.outcome, run.error, run.run_id) == ("completed", None, log.run.run_id)
