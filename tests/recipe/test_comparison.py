"""Comparison files: arms become recipes, and mistakes are told by their key."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cotpipe.errors import UserError
from cotpipe.recipe.comparison import load_comparison, shipped_comparisons
from cotpipe.recipe.files import load_recipe
from cotpipe.recipe.trainers import Grpo
from tests.helpers.repository import ROOT

GOOD: dict[str, Any] = {
    "name": "mine",
    "recipe": "demo",
    "seeds": [1, 2],
    "baseline": "full",
    "arms": {
        "full": None,
        "sft": {"stages": ["stage1"], "set": {"stage1.examples.masks.first_share": 1}, "budget_of": "full"},
        "hot": {"set": {"stage2.trainer.temperature": 1.0, "stage2.trainer.reward": {"preset": "published"}}},
    },
}  # fmt: skip


def written(folder: Path, **changes) -> str:
    path = folder / "comparison.yaml"
    path.write_text(yaml.safe_dump(GOOD | changes, sort_keys=False), encoding="utf-8")
    return str(path)


def test_arms_are_the_base_recipe_with_changes(tmp_path):
    comparison = load_comparison(written(tmp_path), ["evaluation.max_problems=7"])
    base = load_recipe("demo", ["evaluation.max_problems=7"])
    recipes = {name: arm.recipe for name, arm in comparison.arms.items()}
    assert recipes["full"] == base.model_copy(update={"name": "mine.full"})
    assert [stage.name for stage in recipes["sft"].stages] == ["stage1"]
    assert recipes["sft"].stages[0].examples.masks.first_share == 1
    assert recipes["hot"].stage("stage2").trainer.temperature == 1
    assert recipes["hot"].stage("stage2").trainer.reward.preset == "published"
    assert comparison.arms["hot"].with_seed(9).seed == 9


def test_an_arm_that_fills_a_budget_is_measured_in_one_epoch_and_never_ends_early(tmp_path):
    changes = ["stage1.examples.num_epochs=9", "stage1.trainer.keep=best"]
    arms = load_comparison(written(tmp_path), changes).arms
    full, sft = (arms[name].recipe.stage("stage1") for name in ("full", "sft"))
    assert (full.examples.num_epochs, full.trainer.validation.stops) == (9, True)
    assert (sft.examples.num_epochs, sft.trainer.validation.stops) == (1, False)
    plain = load_comparison(written(tmp_path), changes[:1]).arms["sft"].recipe.stage("stage1")
    assert plain.trainer.validation.stops  # nothing is validated: the same checkpoint as ever


def test_members_come_seed_by_seed_and_an_arm_after_the_one_of_its_budget(tmp_path):
    comparison = load_comparison(written(tmp_path))
    assert comparison.members((), ()) == [
        ("full", 1), ("hot", 1), ("sft", 1), ("full", 2), ("hot", 2), ("sft", 2)
    ]  # fmt: skip
    assert comparison.members(["hot"], [2]) == [("hot", 2)]
    with pytest.raises(UserError, match="no arm 'warm' in the comparison; it has: full, sft, hot"):
        comparison.members(["warm"], ())
    with pytest.raises(UserError, match="no seed 3 in the comparison; it has: 1, 2"):
        comparison.members((), [3])


def test_a_recipe_is_found_beside_the_comparison(tmp_path):
    (tmp_path / "base.yaml").write_text("name: base\nseed: 3\n", encoding="utf-8")
    arms = {"one": None, "two": {"set": {"seed": 4}}}
    comparison = load_comparison(
        written(tmp_path, recipe="base.yaml", arms=arms, baseline="one"), ()
    )
    assert comparison.arms["one"].recipe.seed == 3


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"arms": {"full": None}}, "arms: Dictionary should have at least 2 items"),
        ({"baseline": "none"}, "baseline: there is no arm 'none'; the arms are: full, sft, hot"),
        ({"seeds": [1, 1]}, "seeds: a seed is listed twice"),
        ({"seeds": []}, "seeds: "),
        ({"recipe": "nowhere"}, "no file 'nowhere', and no shipped recipe of that name"),
        ({"arms": GOOD["arms"] | {"odd": {"sets": {}}}}, "arms.odd.sets: unknown key"),
        ({"arms": GOOD["arms"] | {"odd": {"set": {"stage9.x": 1}}}}, "arms.odd.set: stage9.x: stage9: unknown key"),
        ({"arms": GOOD["arms"] | {"odd": {"set": {"stage2.trainer.bogus": 1}}}}, "arms.odd: stage2.trainer.bogus: unknown key"),
        ({"arms": GOOD["arms"] | {"odd": {"stages": ["stage7"]}}}, "the base recipe has no stage 'stage7'; its stages: stage1, stage2, stage3"),
        ({"arms": GOOD["arms"] | {"odd": {"set": {"evaluation.split": "validation"}}}}, "arms.odd: it changes evaluation"),
        ({"arms": GOOD["arms"] | {"odd": {"set": {"problems.answers.kind": "exact"}}}}, "arms.odd: it changes problems.answers"),
        ({"arms": GOOD["arms"] | {"odd": {"set": {"student.model": "other"}}}}, "arms.odd: it changes student"),
        ({"arms": GOOD["arms"] | {"odd": {"set": {"problems.splits": {"stage1": 0.6, "stage2": 0.1, "mining": 0.1, "validation": 0.05, "test": 0.15}}}}}, "arms.odd: it changes the share of the validation problems"),
        ({"arms": GOOD["arms"] | {"odd": {"budget_of": "full"}}}, "arms.odd.budget_of: its last stage is not SFT"),
        ({"arms": GOOD["arms"] | {"odd": {"stages": ["stage1"], "budget_of": "sft"}}}, "'sft' is not an arm with a budget of its own"),
    ],
)  # fmt: skip
def test_mistakes_are_told_by_their_key(tmp_path, changes, told):
    with pytest.raises(UserError) as caught:
        load_comparison(written(tmp_path, **changes))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", shipped_comparisons())
def test_shipped_comparisons_load(name):
    assert load_comparison(name).name == name


@pytest.mark.parametrize("path", sorted(ROOT.glob("benchmarks/**/comparison*.yaml")), ids=str)
def test_comparisons_of_the_benchmarks_load(path):
    assert load_comparison(str(path)).arms


@pytest.mark.parametrize("recipe", ["demo", str(ROOT / "benchmarks/lab/recipe.yaml")])
def test_no_two_arms_of_the_curriculum_are_the_same(recipe):
    arms = load_comparison("curriculum", recipe=recipe).arms
    recipes = [arm.recipe.model_dump(exclude={"name"}) for arm in arms.values()]
    assert not [one for place, one in enumerate(recipes) if one in recipes[:place]]
    base = arms["full"].recipe
    assert base.model_dump()["problems"]["source"]["num_rationales"] > 1
    assert base.teacher.choice == "first"  # else the shortest would be the same rationales


def test_the_published_arm_has_the_settings_of_the_paper():
    recipe = load_comparison("curriculum").arms["published"].recipe
    assert recipe.stage("stage1").examples.masks.model_dump(include={"kind", "amount", "probability"}) == {
        "kind": "random", "amount": "one", "probability": 0.7
    }  # fmt: skip
    for name in ("stage2", "stage3"):
        stage = recipe.stage(name)
        trainer = stage.trainer
        assert isinstance(trainer, Grpo)
        assert (trainer.learning_rate, trainer.kl, trainer.clip_range) == (1e-5, 0.1, 0.2)
        assert (trainer.temperature, trainer.top_p, trainer.keep) == (0.7, 0.9, "last")
        assert (trainer.reward.preset, trainer.reward.brevity) == ("published", None)
        assert stage.examples.pass_rates is None
    assert recipe.stage("stage2").examples.masks.amount == "half"
    assert recipe.stage("stage3").examples.problems == "failures"


def test_a_comparison_that_does_not_exist_names_the_shipped_ones():
    with pytest.raises(UserError, match="no shipped comparison of that name .*curriculum"):
        load_comparison("nowhere")


def test_a_change_of_a_stage_changes_no_other_one_that_shares_its_yaml_anchor(tmp_path):
    comparison = load_comparison(written(tmp_path))
    hot = comparison.arms["hot"].recipe
    assert hot.stage("stage3").trainer == comparison.arms["full"].recipe.stage("stage3").trainer
    changed = load_recipe("demo", ["stage2.trainer.learning_rate=0.123"])
    rates = [changed.stage(name).trainer.learning_rate for name in ("stage2", "stage3")]
    assert rates[0] == 0.123 != rates[1]


def test_arms_may_name_the_published_stages_of_a_recipe_that_lists_none(tmp_path):
    (tmp_path / "base.yaml").write_text("name: base\n", encoding="utf-8")
    arms = {"full": None, "one": {"stages": ["stage1"]}}
    comparison = load_comparison(written(tmp_path, recipe="base.yaml", arms=arms))
    assert [stage.name for stage in comparison.arms["one"].recipe.stages] == ["stage1"]


def test_a_comparison_may_have_another_name():
    renamed = load_comparison("curriculum", name="mine")
    assert renamed.arms["sft"].recipe.name == "mine.sft.as-full"


def test_another_base_recipe_takes_the_place_of_the_files(tmp_path):
    base = tmp_path / "other.yaml"
    base.write_text("problems: {source: {kind: arithmetic, num_problems: 321}}\n")
    comparison = load_comparison("curriculum", ["evaluation.max_problems=7"], None, str(base))
    for arm in comparison.arms.values():
        assert arm.recipe.model_dump()["problems"]["source"]["num_problems"] == 321
        assert arm.recipe.evaluation.max_problems == 7
    with pytest.raises(UserError, match="recipe: no file 'nowhere'"):
        load_comparison("curriculum", (), None, "nowhere")
