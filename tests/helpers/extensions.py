"""The files that docs/extending.md shows, and runs with them."""

import re
from pathlib import Path
from typing import Any

import yaml

from cotpipe.data.rows import read_rows
from cotpipe.progress import Silent
from cotpipe.recipe.files import load_recipe
from cotpipe.settings import Settings
from cotpipe.steps.curriculum import needed_for, steps_of
from cotpipe.steps.runner import Outcome, StepRunner
from cotpipe.store.artifacts import open_store
from tests.helpers.repository import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL))
RECIPES = dict(zip(FILES, re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL), strict=True))


def recipe_with(tmp_path: Path, name: str, **others: Any):
    """The recipe that the page shows for one of its files."""
    values = yaml.safe_load(RECIPES[name])
    for section, fields in others.items():
        values[section] = fields | values.get(section, {})
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return load_recipe(str(path))


def run_until(kind: str, recipe, tmp_path: Path, **settings: Any) -> tuple[Any, Outcome]:
    """The artifact of a step, and of all that it needs."""
    own = Settings(store=str(tmp_path / "store"), **settings)
    store = open_store(own)
    runner, found, steps = StepRunner(store, own, Silent()), {}, steps_of(recipe)
    for needed in needed_for(kind, steps):
        outcome = runner.run(steps[needed], recipe, found)
        found[needed] = outcome.reference
    return store, outcome


def rows(store, outcome: Outcome, name: str, row_type: type) -> list:
    return list(read_rows(store.path(outcome.record, f"{name}.parquet"), row_type))


SOURCE = {"source": {"kind": "arithmetic", "num_problems": 40}}


def train_with_the_reward(tmp_path: Path, student: Path) -> Outcome:
    """Stage 2 with the page's reward."""
    stages = yaml.safe_load(RECIPES["rewards.py"])["stages"]
    stages[0]["trainer"] |= {
        "group_size": 2, "prompts_per_step": 2, "micro_batch": 4, "max_new_tokens": 4
    }  # fmt: skip
    stages[0]["examples"] |= {"max_problems": 2}
    path = tmp_path / "recipe.yaml"
    values = {"student": {"model": str(student)}, "problems": SOURCE, "stages": stages}
    path.write_text(yaml.safe_dump(values))
    _, outcome = run_until("stage2", load_recipe(str(path)), tmp_path)
    return outcome
