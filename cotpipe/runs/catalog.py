"""The catalog: DuckDB views over all tables of a store, built from its records on every query."""

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from cotpipe.data.rows import (
    Answered,
    Attempt,
    Example,
    Failure,
    Generation,
    Lesson,
    Logged,
    PassRate,
    Problem,
    Reject,
    Result,
    Rollout,
    TeacherOutcome,
    TeacherRationale,
    ValidatedAnswer,
    schema_of,
)
from cotpipe.errors import UserError
from cotpipe.runs.log import Run, read_runs
from cotpipe.runs.select import require_select
from cotpipe.store.artifacts import Store
from cotpipe.store.records import Record

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
    "validations": ValidatedAnswer,
    "rollouts": Rollout,
    "attempts": Attempt,
    "pass_rates": PassRate,
    "teacher": TeacherOutcome,
    "generations": Generation,
}
"""Views over `NAME.parquet` of all artifacts, with row types; `kind` and `fingerprint` added."""

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
_ABOUT_THE_STORE = {
    "artifacts": ("One artifact: its inputs, package versions, size and location.", _ARTIFACTS),
    "runs": ("One run: its recipe, outcome and duration.", _RUNS),
    "run_steps": ("One step of a run; `kind` and `fingerprint` join with every view.", _STEPS),
}  # fmt: skip


@dataclass(frozen=True)
class View:
    """A view: the meaning of its rows, and its columns with their DuckDB types, in order."""

    name: str
    meaning: str
    columns: dict[str, str]


def query(store: Store, sql: str, to_stdout: bool = False) -> duckdb.DuckDBPyRelation:
    """The result of one `select` over the views listed by `views`.

    It reads no file but the tables of the store; with `to_stdout`, the result may be copied to
    `/dev/stdout`. Raises `UserError` for invalid SQL, several statements, or a statement that writes
    or reads anything else.
    """
    require_select(sql)
    connection = open_catalog(store, sql, to_stdout)
    with sql_errors():
        return connection.sql(sql)


@contextmanager
def sql_errors() -> Iterator[None]:
    """Turn errors of DuckDB into `UserError`; the rows of a result may raise some when fetched."""
    try:
        yield
    except duckdb.Error as error:
        raise UserError(f"sql: {_first_lines(error)}; {_all_views()}") from error


def views() -> Iterator[View]:
    """All views; they are the same for every store."""
    schemas = {
        name: (str(inspect.getdoc(row_type)).splitlines()[0], _schema_of_view(row_type))
        for name, row_type in TABLES.items()
    }
    with duckdb.connect() as connection:
        for name, (meaning, schema) in (schemas | _ABOUT_THE_STORE).items():
            empty = connection.from_arrow(schema.empty_table())
            types = map(str, empty.types)
            yield View(name, meaning, dict(zip(empty.columns, types, strict=True)))


def _all_views() -> str:
    names = ", ".join([*TABLES, *_ABOUT_THE_STORE])
    return f"tables: {names}; cotpipe sql --tables shows their columns"


def _schema_of_view(row_type: type) -> pa.Schema:
    return pa.schema([("kind", pa.string()), ("fingerprint", pa.string()), *schema_of(row_type)])


def open_catalog(store: Store, sql: str, to_stdout: bool = False) -> duckdb.DuckDBPyConnection:
    """A connection with the views that `sql` mentions; DuckDB reads their files, and no other file.

    A view over Parquet files opens all of them, which takes minutes for thousands of files on S3.
    """
    connection = duckdb.connect(config={"python_enable_replacements": False})
    if store.storage.filesystem:
        connection.register_filesystem(store.storage.filesystem)
    mentioned = [name for name in TABLES if name in sql.lower()]
    records = store.records(damaged=False) if mentioned or "artifacts" in sql.lower() else []
    runs = read_runs(store.storage)
    _register(
        connection, "artifacts", _ARTIFACTS, [_artifact_row(record, store) for record in records]
    )
    _register(connection, "runs", _RUNS, [_run_row(run) for run in runs])
    _register(connection, "run_steps", _STEPS, [row for run in runs for row in _step_rows(run)])
    tables = {
        name: store.readable_paths(
            [
                (record, file)
                for record in records
                for file in record.files
                if file.path == f"{name}.parquet"
            ]
        )
        for name in mentioned
    }
    for name, files in tables.items():
        _create_view(connection, name, TABLES[name], files)
    allowed = [file for files in tables.values() for file in files]
    _close(connection, [*allowed, *(["/dev/stdout"] if to_stdout else [])])
    return connection


def _close(connection: duckdb.DuckDBPyConnection, files: list[str]) -> None:
    """Leave nothing open to SQL but these files."""
    connection.execute("set allowed_paths = $1", [files])
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")


def _create_view(
    connection: duckdb.DuckDBPyConnection, name: str, row_type: type, files: list[str]
) -> None:
    if not files:
        _register(connection, name, _schema_of_view(row_type), [])
        return
    listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
    # File names come from our own records, and are quoted; kind and fingerprint from the path.
    connection.execute(f"""
        create view {name} as
        select string_split(filename, '/')[-4] as kind, string_split(filename, '/')[-3] as fingerprint,
               * exclude (filename)
        from read_parquet([{listed}], union_by_name = true, filename = true)
    """)  # noqa: S608


def _register(
    connection: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema, rows: list[dict[str, Any]]
) -> None:
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
    return run.model_dump(
        include={"run_id", "started_at", "finished_at", "git_commit", "error"}
    ) | {
        "recipe": run.recipe["name"],
        "outcome": run.state,
        "seconds": run.seconds,
        "fields": json.dumps(run.recipe),
        "versions": json.dumps(run.versions),
    }


def _step_rows(run: Run) -> list[dict[str, Any]]:
    return [
        {
            "run_id": run.run_id,
            "kind": kind,
            "fingerprint": run.artifacts[kind],
            **step.model_dump(),
        }
        for kind, step in run.steps.items()
    ]


def _first_lines(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
