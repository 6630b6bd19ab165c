"""Sorting rows into kept ones and rejects with their reasons; too many rejects are an error."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cotpipe.data.rows import Reject, Row, RowsWriter
from cotpipe.errors import UserError


@dataclass
class Sorted:
    """What became of the rows of a step."""

    kept: int = 0
    reasons: Counter[str] = field(default_factory=Counter)  # number of rejects by reason
    first: str = "nothing was read"  # detail of the first reject

    @property
    def dropped(self) -> int:
        """Number of rejects."""
        return self.reasons.total()

    @property
    def counts(self) -> dict[str, int]:
        """How many rows were kept and dropped."""
        return {"kept": self.kept, "dropped": self.dropped}


def refuse_too_many(rows: Sorted, allowed: float, field: str) -> None:
    """Raise `UserError` if there are no rows, or too large a share was rejected.

    Args:
        rows: What became of the rows.
        allowed: Maximum share of rejected rows, in [0, 1].
        field: The recipe field that sets `allowed`, for the message.
    """
    total = rows.dropped + rows.kept
    if not total:
        raise UserError("problems.source gives no problems; fix the source")
    if rows.dropped > allowed * total:
        reasons = rows.reasons.most_common(3)
        first = " ".join(rows.first[:200].split())
        raise UserError(
            f"{rows.dropped} of {total} rows were rejected ("
            f"{', '.join(f'{n} x {reason}' for reason, n in reasons)}; first: {first}); "
            f"fix the source, or raise {field} (now {allowed:g})"
        )


def write_with_rejects(
    folder: Path, row_type: type[Row], name: str, rows: Iterable[Row | Reject]
) -> Sorted:
    """Write `NAME.parquet` and `rejects.parquet`, in bounded memory; tells what became of the rows.

    Args:
        folder: The directory to write to.
        row_type: Row type of the kept rows.
        name: Name of their table.
        rows: The rows to keep and the rejects, in the order of their tables.
    """
    found = Sorted()
    with (
        RowsWriter(folder / f"{name}.parquet", row_type) as kept,
        RowsWriter(folder / "rejects.parquet", Reject) as rejects,
    ):
        for row in rows:
            if isinstance(row, Reject):
                rejects.add(row)
                found.first = row.detail if not found.reasons else found.first
                found.reasons[row.reason] += 1
            else:
                kept.add(row)
        found.kept = kept.count
    return found
