"""Bounds that keep the code easy to read."""

import ast
from collections.abc import Iterator

from tests.helpers.repository import ROOT

FOLDERS = ("cotpipe", "tasks", "flows", "deployments", "tests", "benchmarks")
MAX_LINES = 60


def functions() -> Iterator[tuple[str, int]]:
    """Every function, with the number of its lines."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    name = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
                    yield name, (node.end_lineno or node.lineno) - node.lineno + 1


def test_no_function_is_longer_than_a_screen():
    found = dict(functions())
    assert len(found) > 300
    assert {name: lines for name, lines in found.items() if lines > MAX_LINES} == {}
