"""A store that an earlier version has filled, and how it is filled anew: `python -m tests.helpers.store_before`.

Fill it anew only where a step's version is raised on purpose: what it holds is what users' stores hold.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

from cotpipe.recipe.files import load_recipe
from cotpipe.steps.plan import name_artifacts
from cotpipe.store.artifacts import Store
from cotpipe.store.storage import LocalStorage
from tests.helpers.flow_runs import cotpipe_process

BEFORE = Path(__file__).parents[1] / "store_before"
_F = "f" * 32
RECIPES = {
    "demo": ("demo", []),
    "published": ("gsm8k-qwen2.5-3b", []),
    "served teacher": (
        "gsm8k-qwen2.5-3b",
        [
            "teacher.engine=openai",
            "teacher.model=Qwen/Qwen2.5-72B-Instruct",
            "teacher.template_options={enable_thinking: false}",
        ],
    ),
    "local teacher": ("gsm8k-qwen2.5-3b", ["teacher.model=./student", "student.model=./student"]),
    "a file": (
        "gsm8k-smollm2-cpu",
        ["problems.source.path=problems.jsonl", "problems.source.test_path=problems.jsonl"],
    ),
    "a generator": ("demo", ["problems.source={kind: reasoning_gym, num_problems: 7}"]),
    "a night": (
        "demo",
        [
            f"problems.source={{kind: stored, problems: [{_F}]}}",
            f"student.model=store:stage3/{_F}",
            f"mining.history=[{_F}]",
        ],
    ),
    "other stages": (
        "gsm8k-qwen2.5-3b",
        [
            "stage1.examples.masks.kind=critical",
            "stage1.examples.num_epochs=3",
            "stage2.trainer.lora={rank: 4}",
            "stage2.trainer.reward.length_unit=tokens",
            "stage2.trainer.kl=0.1",
            "stage3.examples.last_hint_share=0.2",
            "stage3.trainer.learning_rate=1e-6",
            "seed=3",
        ],
    ),
}


def names_of(recipe: str) -> dict[str, str]:
    """The fingerprints of all artifacts of one of the recipes, by kind; call it in `BEFORE`."""
    with tempfile.TemporaryDirectory() as empty:
        named = name_artifacts(load_recipe(*RECIPES[recipe]), Store(LocalStorage(Path(empty))))
    return {kind: reference.fingerprint for kind, reference in named.items()}


def fill() -> None:
    """Name the artifacts of all recipes, and run one of them, as this version does."""
    os.chdir(BEFORE)
    names = {recipe: names_of(recipe) for recipe in RECIPES}
    Path("fingerprints.json").write_text(json.dumps(names, indent=1) + "\n")
    shutil.rmtree("store")
    done = cotpipe_process("run", "--recipe", "recipe.yaml", "--store", "store")
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    fill()
