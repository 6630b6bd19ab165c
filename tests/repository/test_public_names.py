"""What `from cotpipe import ...` offers: it loads on first use, and nothing heavy with it."""

import subprocess
import sys

import pytest

import cotpipe
from tests.helpers.repository import ROOT

HEAVY = {"torch", "transformers", "trl", "prefect", "vllm"}
SHOW = """
import sys
{statement}
print(*sys.modules)
"""


def modules_after(statement: str) -> set[str]:
    """What a new process has loaded after a statement."""
    done = subprocess.run(
        [sys.executable, "-c", SHOW.format(statement=statement)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("name", cotpipe.__all__)
def test_a_public_name_loads_nothing_heavy(name):
    assert modules_after(f"from cotpipe import {name}") & HEAVY == set()


def test_the_package_alone_loads_none_of_its_rooms():
    ours = {name for name in modules_after("import cotpipe") if name.startswith("cotpipe")}
    assert ours == {"cotpipe"}


def test_public_names_are_those_of_the_modules_that_define_them():
    from cotpipe.rationale.answers import extract_answer

    assert cotpipe.extract_answer is extract_answer
    assert set(cotpipe.__all__) <= set(dir(cotpipe))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="extract_answers"):
        cotpipe.extract_answers  # type: ignore[attr-defined] # noqa: B018


def test_the_command_turns_bars_off_before_tqdm_is_imported():
    assert "tqdm" not in modules_after("import flows.cli.main")
