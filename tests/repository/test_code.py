"""Bounds that keep the code easy to read."""

import ast
from collections.abc import Iterator

from tests.helpers.repository import ROOT

FOLDERS = ("cotpipe", "tasks", "flows", "deployments", "tests", "benchmarks")
MAX_LINES = 60


Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(*folders: str) -> Iterator[tuple[str, Function]]:
    """Every function with its place."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, Function):
                    yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def test_no_function_is_longer_than_a_screen():
    found = {name: (node.end_lineno or 0) - node.lineno + 1 for name, node in functions(*FOLDERS)}
    assert len(found) > 300
    assert {name: lines for name, lines in found.items() if lines > MAX_LINES} == {}


def test_docstrings_explain_the_parameters_of_functions_that_have_many():
    assert {name: unsaid for name, node in documented() if (unsaid := unexplained(node))} == {}


def documented() -> Iterator[tuple[str, Function]]:
    """The library's public functions with more than three parameters of their own choice."""
    for name, node in functions("cotpipe", "tasks", "flows"):
        public = not node.name.startswith(("_", "on_"))  # TRL calls on_... with what it likes
        # A registered function has the parameters of its kind; a command's are in its options.
        own = not node.decorator_list and "flows/cli" not in name
        if public and own and ast.get_docstring(node) and len(parameters_of(node)) > 3:
            yield name, node


def parameters_of(node: Function) -> list[str]:
    names = [one.arg for one in (*node.args.args, *node.args.kwonlyargs)]
    return [name for name in names if name != "self"]


def unexplained(node: Function) -> list[str]:
    told = ast.get_docstring(node) or ""
    return [name for name in parameters_of(node) if name not in told]
