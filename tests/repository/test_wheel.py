"""The wheel, installed in an environment of its own, outside the repository."""

import ast
import email
import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cotpipe.recipe.files import shipped_recipes
from tests.helpers.polling import PATIENCE
from tests.helpers.repository import ROOT

PACKAGES = ("cotpipe", "tasks", "flows", "deployments")
LOAD_ALL = """
import cotpipe, flows, sys
from cotpipe.recipe.files import load_recipe, shipped_recipes
for module in (cotpipe, flows):
    assert module.__file__.startswith(sys.prefix), module.__file__
for name in shipped_recipes():
    print(load_recipe(name).name)
"""


def run(*command: str | Path, **environment: str) -> str:
    """Run a command that is told nothing of where the repository lies; returns its output."""
    environment = os.environ | {"PYTHONPATH": ""} | environment
    done = subprocess.run(
        command, capture_output=True, text=True, cwd="/", env=environment, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing comes from what an earlier build has left."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(*pip, "--wheel-dir", folder, source)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment with the wheel, which sees this one's packages, not the repository."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, symlinks=True)
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python")
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def outside(folder: Path) -> dict[str, str]:
    return {"COTPIPE_STORE": str(folder / "store"), "PREFECT_HOME": str(folder)}


def test_everything_in_the_packages_is_in_the_wheel(wheel):
    packed = set(zipfile.ZipFile(wheel).namelist())
    there = {
        str(path.relative_to(ROOT))
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {
        "deployments/prefect.yaml",
        "cotpipe/report/templates/report.md.jinja",
        "cotpipe/report/templates/page.css",
    } <= there
    assert there - packed == set()


def test_every_package_that_is_imported_is_declared(wheel):
    """So that nothing is missing where no other environment is seen."""
    with zipfile.ZipFile(wheel) as packed:
        (name,) = (name for name in packed.namelist() if name.endswith(".dist-info/METADATA"))
        told = email.message_from_bytes(packed.read(name)).get_all("Requires-Dist")
        sources = [packed.read(name) for name in packed.namelist() if name.endswith(".py")]
    declared = {canonicalize_name(Requirement(one).name) for one in told}
    distributions = importlib.metadata.packages_distributions()
    imported = {module for source in sources for module in imports_of(source)}
    others = imported - set(sys.stdlib_module_names) - set(PACKAGES) - {"vllm"}  # an extra
    assert len(others) > 20
    assert {
        module for module in others
        if not declared & {canonicalize_name(one) for one in distributions[module]}
    } == set()  # fmt: skip


def imports_of(source: bytes) -> Iterator[str]:
    """The first part of every module that a source imports, wherever it does so."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def test_the_installed_command_says_what_it_can(installed, tmp_path):
    assert "--recipe" in run(installed / "cotpipe", "run", "--help", **outside(tmp_path))
    assert "rerun" in run(installed / "cotpipe", "--help", **outside(tmp_path))


def test_the_installed_command_plans_a_run_of_the_demo(installed, tmp_path):
    told = run(installed / "cotpipe", "run", "--recipe", "demo", "--dry-run", **outside(tmp_path))
    assert "will run" in told


def test_the_installed_command_runs(installed, tmp_path):
    run(installed / "cotpipe", "run", "--until", "problems", **outside(tmp_path))
    assert list(tmp_path.glob("store/problems/*/record.json"))


def test_every_shipped_recipe_is_installed(installed, tmp_path):
    told = run(installed / "python", "-c", LOAD_ALL, **outside(tmp_path))
    assert sorted(told.split()) == sorted(shipped_recipes())
