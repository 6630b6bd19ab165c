from pathlib import Path

import pytest
from pydantic import ValidationError

from cotpipe.errors import UserError
from cotpipe.recipe.files import load_recipe, shipped_recipes
from cotpipe.recipe.model import Recipe
from cotpipe.recipe.trainers import Grpo
from cotpipe.steps.plan import name_artifacts
from cotpipe.store.artifacts import Store
from cotpipe.store.storage import LocalStorage

NOTHING = Store(LocalStorage(Path("nothing-is-stored-here")))


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_loads(name):
    assert load_recipe(name).name == name


def test_overrides_win():
    recipe = load_recipe(
        "demo",
        ["stage2.trainer.learning_rate=2e-6", "problems.source.num_problems=50", "name=mine"],
    )
    assert recipe.stage("stage2").trainer.learning_rate == 2e-6
    assert (recipe.problems.source.model_dump()["num_problems"], recipe.name) == (50, "mine")


def test_another_kind_of_section_has_no_fields_of_the_old_one():
    changes = ["problems.source.kind=file", "problems.source.path=x.jsonl"]
    source = load_recipe("gsm8k-qwen2.5-3b", changes).problems.source.model_dump()
    assert (source["kind"], source["path"]) == ("file", "x.jsonl")
    assert source["test_path"] is None
    kept = load_recipe("demo", ["problems.source.kind=arithmetic"])
    assert kept.problems == load_recipe("demo").problems
    masks = (
        load_recipe(
            "demo", ["stage2.examples.masks.ramp=0.5", "stage2.examples.masks.kind=critical"]
        )
        .stage("stage2")
        .examples.masks
    )
    assert (masks.kind, masks.ramp) == ("critical", 0.5)  # every kind of mask has the same fields


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stage2.learning_rat=1", "stage2.learning_rat: unknown key"),
        ("stage2.trainer.learning_rat=1", "stage2.trainer.learning_rat: unknown key"),
        ("stage9.trainer.kl=1", "stage9: unknown key; .*stage1, stage2, stage3"),
        ("nonsense=1", "nonsense: unknown key"),
        (
            "stage2.trainer.group_size=1",
            "stage2.trainer.group_size: .*greater than or equal to 2.*got 1",
        ),
        ("problems.source.kind=floppy", "problems.source: .*floppy"),
        (
            "stage1.trainer.batch_size=7",
            "stage1.trainer: batch_size .7. is not a multiple of micro_batch",
        ),
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
    with pytest.raises(UserError, match=r"broken.yaml, line 1, column 10: not valid YAML"):
        load_recipe(str(broken))
    broken.write_text("- 1")
    with pytest.raises(UserError, match="mapping of sections"):
        load_recipe(str(broken))


def test_every_field_has_a_description():
    from cotpipe.recipe.model import Recipe

    def fields(schema):
        for name, definition in schema.get("$defs", {}).items():
            for key, value in definition.get("properties", {}).items():
                if key not in ("kind", "task"):
                    yield f"{name}.{key}", value
        for key, value in schema["properties"].items():
            yield key, value

    missing = [
        name for name, value in fields(Recipe.model_json_schema()) if not value.get("description")
    ]
    assert missing == []


def test_a_form_changes_what_is_not_at_its_default_and_a_source_as_a_whole():
    from cotpipe.recipe.files import with_changes
    from cotpipe.recipe.model import Recipe

    demo = load_recipe("demo")
    assert with_changes(demo, Recipe()) == demo
    stages = Recipe().model_dump()["stages"]
    stages[0]["trainer"]["lora"] = {"rank": 4}
    stages[1]["examples"]["masks"] |= {"kind": "critical", "ramp": 0.5}
    form = Recipe.model_validate({"name": "mine", "stages": stages})
    changed = with_changes(demo, form)
    assert (changed.name, changed.stage("stage1").trainer.lora.rank) == ("mine", 4)
    stage2 = demo.stage("stage2")
    masks = stage2.examples.masks.model_copy(update={"kind": "critical", "ramp": 0.5})
    assert changed.stage("stage2").examples.masks == masks
    assert changed.stage("stage2").trainer == stage2.trainer
    assert changed.stage("stage3") == demo.stage("stage3")
    source = {"kind": "file", "path": "x.jsonl"}
    changed = with_changes(demo, Recipe.model_validate({"problems": {"source": source}}))
    assert changed.problems.source.model_dump()["path"] == "x.jsonl"
    assert changed.problems.splits == demo.problems.splits
    stages = Recipe().model_dump()["stages"]
    stages[0]["trainer"]["micro_batch"] = 16
    with pytest.raises(
        UserError, match="does not fit the recipe 'demo': stage1.trainer: .*micro_b"
    ):
        with_changes(demo, Recipe.model_validate({"stages": stages}))


def test_a_form_with_other_stages_replaces_them():
    from cotpipe.recipe.files import with_changes
    from cotpipe.recipe.model import Recipe

    demo = load_recipe("demo")
    stages = Recipe().model_dump()["stages"]
    only = Recipe.model_validate({"stages": stages[:1]})
    assert with_changes(demo, only).stages == only.stages
    stages[1]["trainer"]["kl"] = 0.5
    short = demo.model_copy(update={"stages": demo.stages[:1]})
    with pytest.raises(UserError, match="changes the stage 'stage2', which the recipe 'demo' does"):
        with_changes(short, Recipe.model_validate({"stages": stages}))


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            [("a", "b"), ("b", None)],
            "stages: 'a' starts from 'b', which comes later; start it from",
        ),
        ([("a", None), ("b", "c")], "'b' starts from 'c', which is not a stage of the recipe"),
        ([("a", None), ("a", None)], "two stages are called 'a'"),
        ([("lessons", None)], "a stage cannot be called 'lessons'"),
        ([("A", None)], r"A.name: .*pattern[^;]*$"),
        ([("a", "a")], "'a' starts from 'a', which is the stage itself"),
        ([], "stages: .*at least 1 item"),
    ],
)
def test_stages_that_cannot_be_are_refused(stages, message, tmp_path):
    import yaml

    entries = [
        {
            "name": name,
            "start": start,
            "examples": {"task": "reconstruction"},
            "trainer": {"kind": "sft"},
        }
        for name, start in stages
    ]
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump({"stages": entries}))
    with pytest.raises(UserError, match=message):
        load_recipe(str(path))


def named(name: str, start: str | None = None) -> dict:
    return {
        "name": name,
        "start": start,
        "examples": {"task": "reconstruction"},
        "trainer": {"kind": "sft"},
    }


@pytest.mark.parametrize(
    "name", [*Recipe.model_fields, "stage1-examples", "failures-stage1", "evaluation-x", "report"]
)
def test_no_stage_takes_the_name_of_a_section_or_of_another_step(name):
    """It would take the section's place in fingerprints, or the step's place in the pipeline."""
    with pytest.raises(ValidationError, match=f"a stage cannot be called '{name}'"):
        Recipe.model_validate({"stages": [named("stage1"), named(name)]})


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        (["stage1.examples.masks.ramp=0.3"], 3),
        (["stage1.examples.masks.first_share=1"], 0),
        (["stage3.examples.pass_rates=null", "stage3.trainer.replacements=0"], 10),  # hints leave
        (["stage3.examples.pass_rates=null", "stage3.trainer.replacements=0",
          "stage3.examples.last_hint_share=1"], 0),
        (["stage3.trainer.replacements=0"], 0),  # by pass rate: help comes and goes
    ],
)  # fmt: skip
def test_what_is_shown_changes_up_to_a_step(changes, end):
    recipe = load_recipe("demo", changes)
    name = changes[0].partition(".")[0]
    assert recipe.stage(name).ramp_end(10) == end


def test_the_order_of_the_stages_is_part_of_the_reports_name():
    first, second = named("first", "student"), named("second", "student")
    names = {
        name_artifacts(Recipe.model_validate({"stages": stages}), NOTHING)["report"]
        for stages in ([first, second], [second, first], [first, named("second", "first")])
    }
    assert len(names) == 3


def test_sections_that_are_empty_in_the_file_can_be_set(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("problems:\nstages:\n")
    changes = ["problems.source.path=x.jsonl", "stage1.trainer.learning_rate=2e-6"]
    recipe = load_recipe(str(path), [*changes, "problems.source.kind=file"])
    assert recipe.problems.source.model_dump()["path"] == "x.jsonl"
    assert recipe.stage("stage1").trainer.learning_rate == 2e-6


def test_a_stage_outside_the_list_is_told_where_it_belongs(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("stage1: {trainer: {kind: sft}}\n")
    with pytest.raises(
        UserError, match="stage1: unknown key; a stage is an entry of the list `stag"
    ):
        load_recipe(str(path))


def test_grpo_on_a_task_without_a_published_reward_names_one():
    kind = ["stage1.trainer.kind=grpo"]
    with pytest.raises(
        UserError, match="'reconstruction' has no published reward; set trainer.rewa"
    ):
        load_recipe("demo", kind)
    recipe = load_recipe("demo", [*kind, "stage1.trainer.reward={preset: rewrite}"])
    stage = recipe.stage("stage1")
    assert isinstance(stage.trainer, Grpo)
    assert stage.reward_name(stage.trainer) == "rewrite"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["teacher.engine=vllm"], "teacher: the engine 'vllm' needs a model: set teacher.model"),
        (
            ["teacher.engine=openai", "teacher.model=x", "teacher.adapter=y"],
            "openai engine does not take an adapter .* name",
        ),
        (
            ["teacher.engine=magic"],
            "teacher.engine: unknown engine 'magic'; choose one of reference, auto, openai",
        ),
    ],
)
def test_a_teacher_that_cannot_be_is_refused(overrides, message):
    with pytest.raises(UserError, match=message):
        load_recipe("demo", overrides)


@pytest.mark.parametrize(
    "override",
    [
        "problems.source.num_problems=1000000000000", "teacher.num_samples=100000",
        "teacher.max_rounds=40", "teacher.max_new_tokens=2000000", "mining.num_samples=5000",
        "evaluation.max_new_tokens=9999999999", "stage1.examples.num_epochs=1000000", "stage1.trainer.batch_size=8000000",
        "stage1.trainer.max_length=8000000", "stage2.trainer.group_size=100000", "stage2.trainer.prompts_per_step=800000",
        "stage2.trainer.kl=.inf", "seed=99999999999999999999999", "stage2.trainer.max_prompt_length=2000000",
    ],
)  # fmt: skip
def test_sizes_that_no_machine_has_room_for_are_refused(override):
    with pytest.raises(UserError, match=r"less than|finite|multiple") as refused:
        load_recipe("demo", [override])
    assert override.partition("=")[0].removeprefix("stages.") in str(refused.value)


def test_every_size_has_an_upper_bound():
    """Whoever can start a run cannot ask for a trillion of anything."""
    from cotpipe.recipe.model import Recipe

    def numbers(part, where="recipe"):
        if isinstance(part, dict):
            if part.get("type") == "integer" and not {"maximum", "exclusiveMaximum"} & part.keys():
                yield where
            for key, value in part.items():
                yield from numbers(value, f"{where}.{key}")
        elif isinstance(part, list):
            for number, value in enumerate(part):
                yield from numbers(value, f"{where}[{number}]")

    unbounded = [
        one for one in numbers(Recipe.model_json_schema()) if "template_options" not in one
    ]
    assert not unbounded


def names_with(*changes: str) -> dict:
    return name_artifacts(load_recipe("demo", changes), NOTHING)


def test_settings_of_validation_count_where_it_decides_what_is_kept():
    every = "stage2.trainer.validation.every=7"
    assert names_with(every) != names_with()
    last = ("stage2.trainer.keep=last", "stage2.trainer.reward.brevity=null")
    assert names_with(every, *last) == names_with(*last)


def test_numbers_are_in_no_fingerprint_and_every_other_kind_of_answers_is():
    assert names_with("problems.answers.kind=number") == names_with()
    kinds = ["number", "math", "choice", "exact"]
    assert len({names_with(f"problems.answers.kind={kind}")["problems"] for kind in kinds}) == 4


def test_student_and_teacher_are_asked_for_the_recipes_kind_of_answers():
    recipe = load_recipe("demo", ["problems.answers.kind=choice"])
    assert recipe.instruction.endswith("then 'Answer: letter'.")
    assert recipe.teacher_instruction == recipe.instruction
    own = load_recipe("demo", ["problems.answers.kind=choice", "teacher.system_prompt=Think."])
    assert own.teacher_instruction == "Think."
