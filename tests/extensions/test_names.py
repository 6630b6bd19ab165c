"""Names of extensions: two of one name, unknown ones, and who may give them."""

from pathlib import Path
from typing import Any

import pytest

from cotpipe.errors import UserError
from cotpipe.extensions import Registry, load_own
from cotpipe.recipe.files import load_recipe
from cotpipe.recipe.model import Recipe
from cotpipe.settings import Settings
from cotpipe.store.artifacts import open_store
from tests.helpers.extensions import recipe_with


def test_two_extensions_of_one_name_are_refused_with_both_places():
    shapes: Registry[Any] = Registry("shape")
    Path("one.py").write_text("def round_one(): ...")
    Path("two.py").write_text("def round_two(): ...")
    shapes.register("round")(load_own("one.py:round_one"))
    shapes.register("round")(load_own("one.py:round_one"))  # the same one again
    with pytest.raises(UserError, match=r"two shapes are named 'round': .*one.py.* and .*two.py"):
        shapes.register("round")(load_own("two.py:round_two"))


def test_a_name_with_a_meaning_of_its_own_cannot_be_registered():
    shapes: Registry[Any] = Registry("shape", "auto")
    with pytest.raises(UserError, match="the shape 'auto' has a meaning of its own; rename it"):
        shapes.register("auto")(int)


@pytest.mark.parametrize("name", ["masks", "stage1.examples.masks"])
def test_an_unknown_name_lists_what_there_is(name):
    if name == "masks":
        from cotpipe.rationale.masks import masks

        with pytest.raises(UserError, match="unknown mask 'odd'; choose one of random, scat"):
            masks.find("odd")
    else:
        with pytest.raises(UserError, match="stage1.examples.masks.kind: unknown mask 'odd'"):
            load_recipe("demo", [f"{name}.kind=odd"])


def test_the_schema_of_the_form_offers_none_of_the_users_code():
    text = str(Recipe.model_json_schema())
    schema = Recipe.model_json_schema()
    kinds = schema["$defs"]["Problems"]["properties"]["source"]["anyOf"]
    assert not [kind for kind in kinds if "OwnSource" in kind["$ref"]]
    assert schema["$defs"]["Masks"]["properties"]["kind"]["enum"][0] == "random"
    assert ".py:" not in text


def test_code_of_the_users_own_is_not_taken_from_a_form(tmp_path, monkeypatch):
    from flows.curriculum import chosen_recipe

    store = open_store(Settings(store=str(tmp_path / "store")))
    recipe = recipe_with(tmp_path, "masks.py")
    assert chosen_recipe(recipe, None, store) == recipe  # the command runs it
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "a-deployment")
    with pytest.raises(
        UserError, match="masks.py:last_steps: code of your own is not accepted in a"
    ):
        chosen_recipe(recipe, None, store)
    monkeypatch.setenv("COTPIPE_RECIPES", str(tmp_path))
    from_file = chosen_recipe(Recipe(), str(tmp_path / "recipe.yaml"), store)
    assert list(from_file.own_code()) == ["masks.py:last_steps"]
