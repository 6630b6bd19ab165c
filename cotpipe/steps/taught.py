"""The lessons that a stage teaches, read in any order, in bounded memory."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import duckdb
import pyarrow as pa

from cotpipe.data.rows import Lesson
from cotpipe.errors import RunError
from cotpipe.recipe.stages import Stage
from cotpipe.steps.spilling import rows_of
from cotpipe.steps.step import Work

_LESSONS = "read_parquet($lessons, file_row_number = true)"
_IS_FAILURE = "problem_id in (select problem_id from read_parquet($failures))"


class Lessons(Protocol):
    """Lessons with a rationale, readable in any order."""

    def __len__(self) -> int: ...

    def in_order(self, order: Sequence[int]) -> Iterator[Lesson]:
        """The lessons at these positions."""
        ...


class TaughtLessons:
    """The lessons that a stage teaches; memory holds their row numbers, the rest is in the file."""

    def __init__(
        self, database: duckdb.DuckDBPyConnection, work: Work, stage: Stage, mined: str
    ) -> None:
        """Choose the lessons with a rationale from the stage's split, or from the failures `mined`.

        Raises `RunError` if a failure is not in the mining split.
        """
        self._database = database
        self._files = {"lessons": str(work.input("lessons", "lessons.parquet"))}
        problems = stage.examples.problems
        if problems == "failures":
            files = self._files | {"failures": str(work.input(mined, "failures.parquet"))}
            self._require_mining_split(files)
            chosen = self._numbers_of(_IS_FAILURE, files)
        else:
            chosen = self._numbers_of("split = $split", self._files | {"split": problems})
        self._numbers = pa.array(chosen[: stage.examples.max_problems], pa.int64())

    def __len__(self) -> int:
        return len(self._numbers)

    def in_order(self, order: Sequence[int]) -> Iterator[Lesson]:
        """The lessons at these positions; large files are sorted through the disk."""
        places = {
            "number": self._numbers.take(pa.array(order, pa.int64())),
            "place": pa.array(range(len(order)), pa.int64()),
        }
        query = f"""
            select lessons.* exclude (file_row_number) from {_LESSONS} as lessons
            join places on places.number = lessons.file_row_number
            order by places.place
        """  # noqa: S608
        for row in rows_of(self._database, query, self._files, places=pa.table(places)):
            yield Lesson(**row)

    def _numbers_of(self, condition: str, parameters: dict[str, Any]) -> list[int]:
        # `condition` is one of the constants above, never user input.
        query = f"""
            select file_row_number as number from {_LESSONS}
            where len(teacher_steps) > 0 and {condition} order by number
        """  # noqa: S608
        return [row["number"] for row in rows_of(self._database, query, parameters)]

    def _require_mining_split(self, files: dict[str, Any]) -> None:
        query = f"""
            select problem_id from {_LESSONS} where split <> 'mining' and {_IS_FAILURE}
            order by file_row_number
        """  # noqa: S608
        if others := [row["problem_id"] for row in rows_of(self._database, query, files)]:
            raise RunError(
                f"mined failures are not in the mining split: {', '.join(others[:5])}; the student "
                "must not train on other problems; run again with --refresh failures"
            )
