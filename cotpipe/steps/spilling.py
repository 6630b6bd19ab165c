"""Sorting and joining tables of any size in bounded memory, with DuckDB."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

_MEMORY = "1GB"
_MAX_THREADS = 4  # each takes a share of the memory
_ROWS_AT_ONCE = 2_000


@contextmanager
def bounded_database(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty database that takes at most 1 GB; what takes more goes to files under `folder`."""
    with tempfile.TemporaryDirectory(dir=folder) as spilled:
        config: dict[str, Any] = {
            "memory_limit": _MEMORY,
            "temp_directory": spilled,
            "threads": min(_MAX_THREADS, os.cpu_count() or 1),
        }
        with duckdb.connect(config=config) as database:
            yield database


def rows_of(
    database: duckdb.DuckDBPyConnection,
    query: str,
    parameters: Mapping[str, Any],
    **tables: Any,
) -> Iterator[dict[str, Any]]:
    """The rows of a query, converted a few at a time; several can be read in turns.

    Args:
        database: The database to ask.
        query: The query.
        parameters: Its parameters, by name.
        tables: Arrow tables that it reads, by name.
    """
    with database.cursor() as cursor:
        for name, table in tables.items():
            cursor.register(name, table)
        found = cursor.sql(query, params=dict(parameters))
        for batch in found.to_arrow_reader(_ROWS_AT_ONCE):
            yield from batch.to_pylist()
