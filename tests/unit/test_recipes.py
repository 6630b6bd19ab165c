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
