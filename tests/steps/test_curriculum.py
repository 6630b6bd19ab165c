"""The steps of a recipe: one definition, from which order, tasks, GPUs and the form follow."""

import re
from typing import Any

import pytest

from cotpipe.errors import UserError
from cotpipe.recipe.files import load_recipe
from cotpipe.recipe.model import Recipe
from cotpipe.settings import Settings
from cotpipe.steps.curriculum import needed_for, steps_of
from cotpipe.steps.plan import name_artifacts
from cotpipe.store.artifacts import Store
from cotpipe.store.storage import LocalStorage

PUBLISHED = [
    "problems", "student", "rationales", "lessons", "evaluation-base",
    "stage1-examples", "stage1", "evaluation-stage1",
    "stage2-examples", "stage2", "evaluation-stage2",
    "failures", "stage3-examples", "stage3", "evaluation-stage3",
    "report",
]  # fmt: skip


def curriculum(*names: str, **starts: str) -> Recipe:
    """Stages of the published curriculum by their names; `x` is one more, on stage 1's problems."""
    stages = {stage["name"]: stage for stage in Recipe().model_dump()["stages"]}
    more = stages["stage2"] | {"name": "x"}
    more["examples"] = more["examples"] | {"problems": "stage1"}
    chosen = [(stages | {"x": more})[name] | {"start": starts.get(name)} for name in names]
    return Recipe.model_validate({"stages": chosen})


def test_the_published_curriculum():
    steps = steps_of(Recipe())
    assert list(steps) == PUBLISHED
    assert {step.kind: step.verb for step in steps.values() if step.verb != "prepare"} == {
        "evaluation-base": "evaluate", "stage1": "train", "evaluation-stage1": "evaluate",
        "stage2": "train", "evaluation-stage2": "evaluate", "failures": "mine", "stage3": "train",
        "evaluation-stage3": "evaluate", "report": "report",
    }  # fmt: skip


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(),
        curriculum("stage1"),
        curriculum("stage3"),
        curriculum("stage2", "stage1"),
        curriculum("stage1", "stage3", stage3="student"),
        curriculum("stage1", "stage2", "x", "stage3", x="stage1"),
    ],
)
def test_every_step_stands_after_its_inputs(recipe):
    steps = steps_of(recipe)
    for number, step in enumerate(steps.values()):
        assert set(step.inputs) <= set(list(steps)[:number])
    assert list(steps["report"].inputs) == [
        *(f"evaluation-{name}" for name in recipe.checkpoints),
        *recipe.checkpoints[1:],
        "rationales",
        "lessons",
    ]


def test_a_stage_left_out_or_added_reuses_what_is_the_same(tmp_path):
    store = Store(LocalStorage(tmp_path))
    whole = name_artifacts(Recipe(), store)
    without = name_artifacts(curriculum("stage1", "stage3"), store)
    same = {kind for kind, reference in without.items() if whole.get(kind) == reference}
    assert same == {
        "problems", "student", "rationales", "lessons", "evaluation-base", "stage1-examples",
        "stage1", "evaluation-stage1",
    }  # fmt: skip
    assert steps_of(curriculum("stage1", "stage3"))["failures"].inputs == ("stage1", "lessons")
    four = curriculum("stage1", "stage2", "stage3", "x", x="stage1")
    added = name_artifacts(four, store)
    assert {kind for kind in added if added[kind] != whole.get(kind)} == {
        "x-examples", "x", "evaluation-x", "report",
    }  # fmt: skip
    assert steps_of(four)["x"].inputs == ("stage1", "x-examples")


def test_another_task_or_other_problems_are_other_examples(tmp_path):
    store = Store(LocalStorage(tmp_path))
    completion = {"task": "completion", "masks": {"kind": "random", "amount": "share"}}
    named = {
        name: name_artifacts(load_recipe("demo", [f"stage1.examples={examples}"]), store)
        for name, examples in {
            "published": {"task": "reconstruction"},
            "other task": completion | {"problems": "stage1"},
            "other problems": {"task": "reconstruction", "problems": "stage2"},
            "failures": {"task": "reconstruction", "problems": "failures"},
        }.items()
    }
    assert len({one["stage1-examples"] for one in named.values()}) == 4
    assert len({one["stage1"] for one in named.values()}) == 4
    mined = steps_of(load_recipe("gsm8k-qwen2.5-3b", ["stage1.examples.problems=failures"]))
    assert mined["failures"].inputs == ("student", "lessons")
    assert mined["failures-stage2"].inputs == ("stage2", "lessons")
    assert mined["stage3-examples"].inputs == ("lessons", "failures-stage2")


def test_needed_for():
    steps = steps_of(Recipe())
    assert needed_for("stage1", steps) == [
        "problems", "student", "rationales", "lessons", "stage1-examples", "stage1",
    ]  # fmt: skip
    assert needed_for("report", steps) == PUBLISHED
    with pytest.raises(UserError, match="no step is called 'stage9'; the steps are: problems, stu"):
        needed_for("stage9", steps)


def test_gpus_are_asked_for_by_what_computes_on_them():
    settings = Settings(num_processes=2, tensor_parallel=3)

    def gpus(*changes: str) -> dict[str, int]:
        recipe = load_recipe("demo", changes)
        return {kind: step.gpus(recipe, settings) for kind, step in steps_of(recipe).items()}

    counts = gpus()
    assert {kind for kind, count in counts.items() if count == 2} == {"stage1", "stage2", "stage3"}
    evaluations = {kind for kind in PUBLISHED if kind.startswith("evaluation-")}
    asked = {kind for kind, count in counts.items() if count == 3}
    assert asked == {"stage2-attempts", "stage3-attempts"} | evaluations
    assert steps_of(Recipe())["failures"].gpus(Recipe(), settings) == 3
    assert gpus("teacher.engine=vllm", "teacher.model=a/b")["rationales"] == 3
    assert gpus("teacher.engine=openai", "teacher.model=a/b")["rationales"] == 0


def test_the_form_takes_the_steps_of_any_recipe_and_says_which_there_are():
    from prefect.utilities.callables import parameter_schema

    from flows.curriculum import curriculum as flow

    properties = parameter_schema(flow.fn).model_dump()["properties"]
    assert properties["until"]["type"] == properties["refresh"]["items"]["type"] == "string"
    assert "enum" not in str(properties["until"]) + str(properties["refresh"])
    named = set(re.findall(r"[a-z0-9-]+", properties["until"]["description"]))
    assert {step for step in PUBLISHED if not re.search(r"stage[23]", step)} <= named


@pytest.mark.parametrize("name", ["until", "refresh"])
def test_a_step_that_the_recipe_does_not_have_is_refused_before_anything_is_made(name, tmp_path):
    from cotpipe.runs.log import RunLog
    from flows.curriculum import run_steps

    store = Store(LocalStorage(tmp_path))
    asked: dict[str, Any] = {name: "stage9" if name == "until" else ["stage9"]}
    recipe = load_recipe("demo")
    log = RunLog(store.storage, recipe, suffix="0123abcd")
    with pytest.raises(UserError, match="'stage9'; the steps are: problems, student, .*report"):
        run_steps(store, recipe, log, **asked)
    assert not list(tmp_path.iterdir())
