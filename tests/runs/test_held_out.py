"""How many held-out problems there are is known before anything is trained."""

import json
import shutil
from pathlib import Path

import pytest

from cotpipe.errors import RunError
from cotpipe.progress import Silent
from cotpipe.recipe.model import Recipe
from cotpipe.runs.held_out import count_held_out
from cotpipe.runs.nights import INBOX, night_recipe, take_in
from cotpipe.runs.promotion import ModelRegistry
from cotpipe.settings import Settings
from cotpipe.steps.curriculum import steps_of
from cotpipe.steps.runner import StepRunner
from cotpipe.store.artifacts import open_store


@pytest.mark.parametrize("most", [None, 5])
def test_as_many_are_announced_as_the_lessons_hold_out(tmp_path, most):
    settings = Settings(store=str(tmp_path))
    runner = StepRunner(open_store(settings), settings, Silent())
    recipe = Recipe.model_validate({"evaluation": {"max_problems": most}})
    taken = []
    for name, start in (("one.jsonl", 0), ("two.jsonl", 30)):  # they share ten questions
        rows = (
            {"question": f"How many {number}?", "answer": "One and one.\nTwo.\n#### 2"}
            for number in range(start, start + 40)
        )
        path = Path(tmp_path, INBOX, name)
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        taken.append(take_in(runner, recipe, name))
    batches = [file.problems for file in taken]
    recipe = night_recipe(recipe, batches, ModelRegistry(), 3)
    found = {}
    for kind in ("problems", "rationales", "lessons"):
        step = steps_of(recipe)[kind]
        outcome = runner.run(step, recipe, {name: found[name] for name in step.inputs})
        found[kind] = outcome.reference
    held_out = outcome.record.counts[f"{recipe.evaluation.split} problems"]
    assert held_out > 5
    assert count_held_out(runner.store, found["problems"], recipe) == (most or held_out)
    shutil.rmtree(tmp_path / str(found["problems"]))
    with pytest.raises(RunError, match=str(found["problems"])):
        count_held_out(runner.store, found["problems"], recipe)
