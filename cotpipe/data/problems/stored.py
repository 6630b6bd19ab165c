"""Problems from one or more artifacts in the store."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from typing_extensions import override

from cotpipe.data.problems.source import Reading, Source, sources
from cotpipe.data.rows import Problem, Reject, read_rows
from cotpipe.store.records import Reference

PROBLEMS = "problems.parquet"


@sources.register("stored")
class StoredSource(Source):
    """Problems from one or more artifacts in the store, as used by nightly runs."""

    kind: Literal["stored"] = "stored"
    problems: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")], ...] = Field(
        min_length=1,
        description="Fingerprints of `problems` artifacts; problems of the last one are used first",
    )
    checked: ClassVar[bool] = True

    @override
    def read(self, reading: Reading) -> Iterator[Problem | Reject]:
        """The problems; a repeated question stays in the first batch that contains it."""
        seen: set[str] = set()
        for batch, fingerprint in enumerate(self.problems):
            reference = Reference(kind="problems", fingerprint=fingerprint)
            for problem in read_rows(reading.stored(reference, PROBLEMS), Problem):
                if problem.problem_id in seen:
                    where = f"in batch {batch}, and in one before it"
                    yield Reject(problem.problem_id, "repeated question", where)
                else:
                    seen.add(problem.problem_id)
                    yield replace(problem, batch=batch)
