"""The generated parts of the documentation are what the code says."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from cotpipe.recipe.model import Recipe
from cotpipe.settings import Settings
from tests.helpers.repository import ROOT

SCRIPT = ROOT / "docs" / "reference.py"
RECIPES = [
    pytest.param(text, id=f"{page.stem}-{number}")
    for page in sorted((ROOT / "docs").glob("*.md"))
    for number, text in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL))
]


@pytest.fixture
def reference(tmp_path, monkeypatch) -> ModuleType:
    """The generator, with copies of its pages."""
    spec = importlib.util.spec_from_file_location("reference", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for page in module.BLOCKS:
        shutil.copy(ROOT / "docs" / page, tmp_path)
    monkeypatch.setattr(module, "DOCS", tmp_path)
    return module


def run(reference: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit status of the generator."""
    monkeypatch.setattr(sys, "argv", ["reference.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        reference.main()
    return int(str(ended.value.code))


def test_every_generated_page_is_up_to_date_wherever_the_command_is_called(tmp_path):
    surroundings = {
        "COTPIPE_STORE": "elsewhere",
        "COTPIPE_SERVER_KEY": "a secret",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, SCRIPT, "--check"],
        cwd=tmp_path,
        env=os.environ | surroundings,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stale_page_is_named_and_then_written(reference, monkeypatch, capsys):
    page = Path(reference.DOCS, "recipe.md")
    good = page.read_text()
    page.write_text(good.replace("Seed of every random choice", "Seed of something"))
    assert run(reference, monkeypatch, "--check") == 1
    assert "docs/recipe.md is stale" in capsys.readouterr().out
    assert run(reference, monkeypatch) == 0
    assert page.read_text() == good
    assert run(reference, monkeypatch, "--check") == 0


def test_every_setting_is_in_the_table(reference):
    table = reference.settings_reference()
    assert all(f"| `COTPIPE_{name.upper()}` |" in table for name in Settings.model_fields)
    assert re.search(r"COTPIPE_SERVER_KEY` \| secret \| none", table)


def test_every_kind_of_section_and_its_bounds_are_there(reference):
    page = reference.recipe_reference()
    for heading in (
        "problems.source, `kind: own`",
        "STAGE.examples, `task: rewriting`",
        "STAGE.examples.masks",
        "STAGE.trainer, `kind: grpo`",
        "STAGE.trainer.lora",
    ):
        assert page.count(f"### {heading}\n") == 1
    assert "| `clip_range` | number | `0.2` | > 0, &lt; 1 |" in page
    assert "| `masks` | section | `kind: scattered`, `amount: half` |" in page


@pytest.mark.parametrize("text", RECIPES)
def test_every_recipe_in_the_documentation_is_one(text):
    Recipe.model_validate(yaml.safe_load(text))
