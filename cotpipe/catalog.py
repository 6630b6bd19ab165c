"""The catalog: DuckDB views over all tables of a store, made of its records whenever somebody asks."""

import json
from typing import Any

import duckdb
import pyarrow as pa

from cotpipe.errors import UserError
from cotpipe.records import Record
from cotpipe.rows import (
    Answered,
    Example,
    Failure,
    Generation,
    Lesson,
    Logged,
    Problem,
    Reject,
    Result,
    TeacherOutcome,
    TeacherRationale,
    schema_of,
)
from cotpipe.runs import Run, read_runs
from cotpipe.s3 import S3Storage
from cotpipe.store import Store

TABLES: dict[str, type] = {
    "problems": Problem,
    "rationales": TeacherRationale,
    "rejects": Reject,
    "lessons": Lesson,
    "examples": Example,
    "completions": Answered,
    "failures": Failure,
    "evaluations": Answered,
    "results": Result,
    "training_log": Logged,
    "teacher": TeacherOutcome,
    "generations": Generation,
}
"""The views over `NAME.parquet` of all artifacts, and their rows; each has `kind` and `fingerprint`, too."""

_ARTIFACTS = pa.schema(
    [
        ("kind", pa.string()), ("fingerprint", pa.string()), ("made_at", pa.string()), ("seconds", pa.float64()),
        ("bytes", pa.int64()), ("counts", pa.string()), ("fields", pa.string()), ("inputs", pa.string()),
        ("versions", pa.string()), ("location", pa.string()),
    ]
)  # fmt: skip
_RUNS = pa.schema(
    [
        ("run_id", pa.string()), ("recipe", pa.string()), ("outcome", pa.string()), ("started_at", pa.string()),
        ("finished_at", pa.string()), ("seconds", pa.float64()), ("git_commit", pa.string()), ("error", pa.string()),
        ("fields", pa.string()), ("versions", pa.string()),
    ]
)  # fmt: skip
_STEPS = pa.schema(
    [
        ("run_id", pa.string()), ("kind", pa.string()), ("fingerprint", pa.string()), ("reused", pa.bool_()),
        ("seconds", pa.float64()),
    ]
)  # fmt: skip


def query(store: Store, sql: str) -> duckdb.DuckDBPyRelation:
    """The result of one `select` over the views `artifacts`, `runs`, `run_steps` and those of `TABLES`.

    Raises `UserError` for SQL that is broken or that is more than one reading statement.
    """
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise UserError(f"sql: {_first_lines(error)}") from error
    if len(statements) != 1 or statements[0].type not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        raise UserError("sql: one select statement; the store is only read here, what is in it is made by runs")
    connection = open_catalog(store)
    try:
        return connection.sql(sql)
    except duckdb.Error as error:
        raise UserError(f"sql: {_first_lines(error)}; tables: {', '.join(view_names())}") from error


def view_names() -> list[str]:
    """The names of all views."""
    return [*TABLES, "artifacts", "runs", "run_steps"]


def open_catalog(store: Store) -> duckdb.DuckDBPyConnection:
    """A connection with all views; DuckDB reads the Parquet files where they lie."""
    connection = duckdb.connect()
    if isinstance(store.storage, S3Storage):
        connection.register_filesystem(store.storage.files)
    records = store.records(damaged=False)
    runs = read_runs(store.storage)
    _register(connection, "artifacts", _ARTIFACTS, [_artifact_row(record, store) for record in records])
    _register(connection, "runs", _RUNS, [_run_row(run) for run in runs])
    _register(connection, "run_steps", _STEPS, [row for run in runs for row in _step_rows(run)])
    for name, row_type in TABLES.items():
        files = [
            store.storage.location(f"{record.folder}/{file.path}")
            for record in records
            for file in record.files
            if file.path == f"{name}.parquet"
        ]
        _create_view(connection, name, schema_of(row_type), files)
    return connection


def _create_view(connection: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema, files: list[str]) -> None:
    if not files:
        nothing = pa.schema([("kind", pa.string()), ("fingerprint", pa.string()), *schema])
        _register(connection, name, nothing, [])
        return
    listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
    # Names of our own files, quoted; the path says whose they are.
    connection.execute(f"""
        create view {name} as
        select string_split(filename, '/')[-4] as kind, string_split(filename, '/')[-3] as fingerprint,
               * exclude (filename)
        from read_parquet([{listed}], union_by_name = true, filename = true)
    """)  # noqa: S608


def _register(connection: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema, rows: list[dict[str, Any]]) -> None:
    connection.register(name, pa.Table.from_pylist(rows, schema=schema))


def _artifact_row(record: Record, store: Store) -> dict[str, Any]:
    return record.model_dump(include={"kind", "fingerprint", "made_at", "seconds"}) | {
        "bytes": sum(file.size for file in record.files),
        "counts": json.dumps(record.counts),
        "fields": json.dumps(record.fields),
        "inputs": json.dumps(record.inputs),
        "versions": json.dumps(record.versions),
        "location": store.storage.location(record.folder),
    }


def _run_row(run: Run) -> dict[str, Any]:
    return run.model_dump(include={"run_id", "started_at", "finished_at", "git_commit", "error"}) | {
        "recipe": run.recipe["name"],
        "outcome": run.state,
        "seconds": run.seconds,
        "fields": json.dumps(run.recipe),
        "versions": json.dumps(run.versions),
    }


def _step_rows(run: Run) -> list[dict[str, Any]]:
    return [
        {"run_id": run.run_id, "kind": kind, "fingerprint": run.artifacts[kind], **step.model_dump()}
        for kind, step in run.steps.items()
    ]


def _first_lines(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
