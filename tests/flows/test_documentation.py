"""What the documentation says of a finished run: the blocks of the notebook's page, the table of steps."""

import re
from collections.abc import Iterator

import pytest

from cotpipe.recipe.model import Recipe
from cotpipe.runs.catalog import TABLES, query
from cotpipe.settings import Settings
from cotpipe.steps.curriculum import steps_of
from cotpipe.store.artifacts import open_store
from tests.helpers.pages import PAGES, arguments_of, command_lines
from tests.helpers.repository import ROOT

STAGES = {stage.name for stage in Recipe().stages}


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def test_the_blocks_of_the_notebook_page_run_one_after_the_other(stores, monkeypatch):
    monkeypatch.setenv("COTPIPE_STORE", stores)
    blocks = re.findall(r"```python\n(.*?)```", page("notebook.md"), re.DOTALL)
    cells: dict = {}
    for block in blocks:
        exec(compile(block, "docs/notebook.md", "exec"), cells)
    assert list(cells["results"].checkpoint) == ["base", "stage1", "stage2", "stage3"]
    assert len(cells["evaluations"]) == 5
    assert cells["first"] != cells["second"]
    assert len(cells["both"]) == 5  # the second run asks fewer problems
    assert isinstance(cells["text"], str)
    assert cells["step"].kind == "report"


def queries() -> Iterator[str]:
    """Every `select` that a page shows with `cotpipe sql`."""
    for page in PAGES:
        for line, _ in command_lines(page):
            arguments = arguments_of(line) or []
            if arguments[:1] == ["sql"]:
                yield from (one for one in arguments[1:] if not one.startswith("-"))


@pytest.mark.parametrize("select", sorted(set(queries())))
def test_every_query_that_is_shown_is_one(stores, select):
    query(open_store(Settings(store=stores)), select).fetchall()


def general(kind: str) -> str:
    """A kind as the table has it: `STAGE` for the name of any stage."""
    return re.sub("|".join(STAGES), "STAGE", kind)


def cells_of(text: str) -> list[str]:
    return re.findall(r"`([\w/.-]+)`", text)


def test_the_table_of_steps_is_what_a_run_makes(finished):
    folder, results = finished
    store = open_store(Settings(store=str(folder)))
    lines = re.findall(
        r"^\| `(.+?)` \| (\w+) \| (.+?) \| (.+?) \| (.*?) ?\|$",
        page("architecture.md"),
        re.MULTILINE,
    )
    table = {kind: rest for kind, *rest in lines}
    steps = steps_of(Recipe())
    only_with_pass_rates = {"STAGE-attempts"}
    assert table.keys() - only_with_pass_rates == {general(kind) for kind in steps}
    for kind, step in steps.items():
        verb, reads, writes, rows = table[general(kind)]
        assert verb == step.verb, kind
        if kind != "report":
            named = {name for name in cells_of(reads) if name in {general(one) for one in steps}}
            optional = {"lessons"} if verb == "train" else {"failures"}
            assert named <= {*map(general, step.inputs)} | optional, kind
        record = store.record(results[kind].reference)
        tables = [
            file.path.removesuffix(".parquet")
            for file in record.files
            if file.path.endswith(".parquet")
        ]
        only_with_validation = {"validations"} if verb == "train" else set()
        only_of_grpo = {"rollouts"} if kind == "stage1" else set()
        told = {name for name in cells_of(writes) if name in TABLES}
        assert told - only_with_validation - only_of_grpo == set(tables), kind
        assert set(cells_of(rows)) == {TABLES[name].__name__ for name in told}, kind
