"""Which SQL the catalog takes: one statement that only reads."""

import json
from collections.abc import Iterator
from typing import Any

import duckdb

from cotpipe.errors import UserError

_READS = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
_RUNS_TEXT = {"query", "json_execute_serialized_sql"}
"""Functions that run a text as SQL, in which a statement could hide."""


def require_select(sql: str) -> None:
    """Raise `UserError` unless `sql` is one select, in DuckDB's own syntax tree.

    The type of the statement does not tell: `with x as (copy ...) select 1` is a select that writes
    a file, and `explain analyze` runs what it explains.
    """
    try:
        tree = _syntax_tree(sql)
        is_select = not tree["error"] and len(tree["statements"]) == 1 and _only_reads(tree)
    except RecursionError:
        raise UserError(
            "sql: the statement is nested too deeply (a chain such as 1 + 1 + ... is, too); split it, "
            "or write a list: in (...), list_sum([...])"
        ) from None
    if tree["error"] and tree["error_type"] == "parser":
        raise UserError(f"sql: {' '.join(tree['error_message'].split())}")
    if not is_select:
        raise UserError(
            "sql: write one select statement; the catalog is read-only, and takes no statement as text"
        )


def _syntax_tree(sql: str) -> dict[str, Any]:
    with duckdb.connect() as parser:
        try:
            (answer,) = parser.execute("select json_serialize_sql($1)", [sql]).fetchall()
        except duckdb.Error as error:
            raise UserError(f"sql: {' '.join(str(error).split())[:400]}") from error
    tree: dict[str, Any] = json.loads(answer[0])
    return tree


def _only_reads(tree: dict[str, Any]) -> bool:
    for part in _parts(tree):
        kind = part.get("type")
        if isinstance(kind, str) and kind.endswith("_NODE") and kind not in _READS:
            return False
        if str(part.get("function_name")).lower() in _RUNS_TEXT:
            return False
    return True


def _parts(tree: Any) -> Iterator[dict[str, Any]]:
    """All objects of the syntax tree."""
    if isinstance(tree, dict):
        yield tree
    for child in tree.values() if isinstance(tree, dict) else tree:
        if isinstance(child, dict | list):
            yield from _parts(child)
