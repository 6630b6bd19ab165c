"""Problems from local JSONL, Parquet and CSV files, with row-level validation."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field
from typing_extensions import override

from cotpipe.data.problems.columns import TableSource, require_columns
from cotpipe.data.problems.source import Reading, sources
from cotpipe.data.rows import Problem, Reject
from cotpipe.errors import UserError
from cotpipe.store.storage import input_sha256

SUFFIXES = (".jsonl", ".parquet", ".csv")


@sources.register("file")
class FileSource(TableSource):
    """A local JSONL, Parquet or CSV file; GSM8K's own form (`rationale #### answer`) is understood."""

    kind: Literal["file"] = "file"
    path: str = Field(description="Training problems: a .jsonl, .parquet or .csv file")
    test_path: str | None = Field(
        None, description="Held-out test problems, if they are in a separate file"
    )

    @override
    def read(self, reading: Reading) -> Iterator[Problem | Reject]:
        """The problems of the file, then the held-out problems of the test file, if any.

        Raises `UserError` for a missing, empty or malformed file, a missing column, or a duplicate
        id.
        """
        seen: dict[str, str] = {}
        for path, split in ((self.path, None), (self.test_path, "test")):
            if path is None:
                continue
            for where, row in _read_file(Path(path), self.columns(), self.limit):
                problem = self.problem_of(row, split, where, reading)
                yield _first_only(problem, seen, where, self.id_column)

    @override
    def content(self) -> dict[str, Any]:
        """Files count by content and suffix, not by path."""
        counted = self.identity()
        for name, path in self._paths().items():
            if not path.is_file():
                raise UserError(f"problems.source.{name}: no such file: {path}")
            counted[name] = input_sha256(path) + path.suffix
        return counted

    @override
    def local_paths(self) -> list[Path]:
        return list(self._paths().values())

    @override
    def check(self) -> str:
        missing = [str(path) for path in self._paths().values() if not path.is_file()]
        if missing:
            raise UserError(f"no such file: {', '.join(missing)}; set problems.source.path")
        return f"{self.path} exists"

    def _paths(self) -> dict[str, Path]:
        named = {"path": self.path, "test_path": self.test_path}
        return {name: Path(path) for name, path in named.items() if path is not None}


def _first_only(
    problem: Problem | Reject, seen: dict[str, str], where: str, id_column: str | None
) -> Problem | Reject:
    first = seen.setdefault(problem.problem_id, where)
    if first == where:
        return problem
    if id_column:
        raise UserError(
            f"{where}: id {problem.problem_id!r} was already used at {first}; "
            f"ids in column {id_column!r} must be unique"
        )
    return Reject(problem.problem_id, "repeated question", f"{where}, first at {first}")


def _read_file(
    path: Path, columns: list[str], limit: int | None
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of a file, each with its location."""
    if not path.is_file():
        raise UserError(f"{path}: no such file (problems.source in the recipe)")
    if path.suffix not in SUFFIXES:
        raise UserError(
            f"{path}: unsupported file type {path.suffix!r}; use one of {', '.join(SUFFIXES)}"
        )
    count = 0
    for where, row in _jsonl(path) if path.suffix == ".jsonl" else _table(path):
        require_columns(where, row, columns)
        count += 1
        yield where, row
        if count == limit:
            return
    if not count:
        raise UserError(f"{path}: the file has no rows")


def _jsonl(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{path}, line {number}"
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(
                    f"{where}: invalid JSON ({error}); fix or delete the line"
                ) from error
            if not isinstance(row, dict):
                raise UserError(
                    f'{where}: expected a JSON object such as {{"question": ..., "answer": ...}}'
                )
            yield where, row


def _table(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pandas as pd  # it takes half a second

    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype=str)
    except (pa.ArrowInvalid, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as {path.suffix[1:]}: {error}") from error
    except pd.errors.EmptyDataError:
        return
    for number, row in enumerate(table.to_dict("records"), start=1):
        yield f"{path}, row {number}", {str(column): value for column, value in row.items()}
