"""Problems from local JSONL, Parquet and CSV files, from the hub and from reasoning_gym, each row checked."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from cotpipe.answers import extract_answer
from cotpipe.config import FileSource, GymSource, HubSource
from cotpipe.errors import UserError
from cotpipe.rows import Problem, Reject

SUFFIXES = (".jsonl", ".parquet", ".csv")


def file_problems(source: FileSource) -> Iterator[Problem | Reject]:
    """The problems of a local file, then those of the test file (held out), if there is one.

    Raises `UserError` for a file that is missing, empty or broken, a missing column, and a repeated id.
    """
    seen: dict[str, str] = {}
    for path, split in ((source.path, None), (source.test_path, "test")):
        if path is None:
            continue
        columns = [source.question_column, source.answer_column, source.rationale_column, source.id_column]
        for where, row in _read_file(Path(path), [column for column in columns if column], source.limit):
            problem = _problem(row, source, split, where)
            if problem.problem_id in seen:
                if source.id_column:
                    raise UserError(
                        f"{where}: id {problem.problem_id!r} was already used at {seen[problem.problem_id]}; "
                        f"ids in column {source.id_column!r} must be unique"
                    )
                problem = Reject(
                    problem.problem_id, "repeated question", f"{where}, first at {seen[problem.problem_id]}"
                )
            else:
                seen[problem.problem_id] = where
            yield problem


def hub_problems(source: HubSource) -> Iterator[Problem | Reject]:
    """The problems of a data set on the Hugging Face hub; its test split is held out."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    for split, held_out in ((source.train_split, None), (source.test_split, "test")):
        if split is None:
            continue
        try:
            table = load_dataset(source.dataset, source.subset, split=split, revision=source.revision)
        except (DatasetNotFoundError, ConnectionError, ValueError) as error:
            raise UserError(
                f"problems.source.dataset: cannot load {source.dataset!r}, split {split!r}: {error}"
            ) from error
        _require_columns(source.dataset, table.column_names, [source.question_column, source.answer_column])
        for number, row in enumerate(table.take(source.limit) if source.limit else table, start=1):
            yield _problem(row, source, held_out, f"{source.dataset} {split} row {number}")


def gym_problems(source: GymSource, seed: int) -> Iterator[Problem | Reject]:
    """Problems of a `reasoning_gym` generator, with the rationale of their metadata."""
    import reasoning_gym

    try:
        dataset = reasoning_gym.create_dataset(source.dataset, size=source.num_problems, seed=seed)
    except ValueError as error:
        raise UserError(f"problems.source.dataset: reasoning_gym has no generator {source.dataset!r}") from error
    for number, entry in enumerate(dataset):
        problem_id = f"{source.dataset}-{number:06d}"
        answer = extract_answer(str(entry["answer"]))
        if answer is None:
            yield Reject(problem_id, "gold answer is no number", str(entry["answer"])[:200])
            continue
        rationale = entry["metadata"].get(source.rationale_key)
        yield Problem(problem_id, entry["question"], answer, [f"{rationale}\n#### {answer}"] if rationale else [])


def _problem(row: Mapping[str, Any], source: FileSource | HubSource, split: str | None, where: str) -> Problem | Reject:
    question = _text(row[source.question_column])
    stated = _text(row[source.answer_column])
    id_column = source.id_column if isinstance(source, FileSource) else None
    problem_id = _text(row[id_column]) if id_column else hashlib.sha256(question.encode()).hexdigest()[:16]
    answer = extract_answer(stated)
    if not question:
        return Reject(problem_id, "empty question", where)
    if answer is None:
        return Reject(problem_id, "gold answer is no number", f"{where}: {stated[:200]!r}")
    rationale = _text(row[source.rationale_column]) if source.rationale_column else stated if "####" in stated else ""
    return Problem(problem_id, question, answer, [rationale] if rationale else [], split)


def _text(value: Any) -> str:
    return "" if value is None or value != value else str(value).strip()


def _read_file(path: Path, columns: list[str], limit: int | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Rows of a file, each with the place where it stands."""
    if not path.is_file():
        raise UserError(f"{path}: no such file (problems.source in the recipe)")
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: unknown kind of file {path.suffix!r}; use one of {', '.join(SUFFIXES)}")
    count = 0
    for where, row in _jsonl(path) if path.suffix == ".jsonl" else _table(path):
        _require_columns(where, row, columns)
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
                raise UserError(f"{where}: broken JSON ({error}); repair or delete the line") from error
            if not isinstance(row, dict):
                raise UserError(f'{where}: expected a JSON object such as {{"question": ..., "answer": ...}}')
            yield where, row


def _table(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype=str)
    except (pa.ArrowInvalid, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as {path.suffix[1:]}: {error}") from error
    except pd.errors.EmptyDataError:
        return
    for number, row in enumerate(table.to_dict("records"), start=1):
        yield f"{path}, row {number}", {str(column): value for column, value in row.items()}


def _require_columns(where: str, present: Iterable[str], wanted: list[str]) -> None:
    missing = [column for column in wanted if column not in present]
    if missing:
        raise UserError(
            f"{where}: column {missing[0]!r} is missing (found: {', '.join(map(str, present)) or 'none'}); "
            "name the right one in problems.source, for example question_column"
        )
