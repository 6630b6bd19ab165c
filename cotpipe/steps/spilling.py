"""Sorting and joining tables of any size in bounded memory, with DuckDB."""

import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

_MEMORY = "1500MB"
_THREADS = 1  # each pins blocks of its own; Python takes the rows more slowly than one makes them
_ROWS_AT_ONCE = 2_048


@contextmanager
def bounded_database(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty database that takes at most 1.5 GB; what takes more goes to files under `folder`."""
    with tempfile.TemporaryDirectory(dir=folder) as spilled:
        config: dict[str, Any] = {
            "memory_limit": _MEMORY,
            "temp_directory": spilled,
            "threads": _THREADS,
        }
        with duckdb.connect(config=config) as database:
            yield database


def rows_of(
    database: duckdb.DuckDBPyConnection,
    query: str,
    parameters: Mapping[str, Any],
    **tables: Any,
) -> Iterator[dict[str, Any]]:
    """The rows of a query, in its order; several can be read in turns.

    They go through a file: the memory of a sort is free again when its first row is read.

    Args:
        database: The database to ask.
        query: The query.
        parameters: Its parameters, by name.
        tables: Arrow tables that it reads, by name.
    """
    folder = database.sql("select current_setting('temp_directory')").fetchall()[0][0]
    path = Path(folder, f"{uuid.uuid4().hex}.parquet")
    quoted = str(path).replace("'", "''")
    with database.cursor() as cursor:
        for name, table in tables.items():
            cursor.register(name, table)
        options = f"format parquet, row_group_size {_ROWS_AT_ONCE}"
        cursor.execute(f"copy ({query}) to '{quoted}' ({options})", dict(parameters))
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS_AT_ONCE):
            yield from batch.to_pylist()
    path.unlink()
