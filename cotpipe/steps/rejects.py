"""Rows that a step rejects: written with the reason; too many are an error."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from cotpipe.data.rows import Reject, Row, write_rows
from cotpipe.errors import UserError


def refuse_too_many(rejects: list[Reject], num_kept: int, allowed: float, field: str) -> None:
    """Raise `UserError` if there are no rows, or too large a share was rejected.

    Args:
        rejects: The rejected rows.
        num_kept: Number of rows kept.
        allowed: Maximum share of rejected rows, in [0, 1].
        field: The recipe field that sets `allowed`, for the message.
    """
    total = len(rejects) + num_kept
    if not total:
        raise UserError("problems.source gives no problems; fix the source")
    if len(rejects) > allowed * total:
        reasons = Counter(reject.reason for reject in rejects).most_common(3)
        first = rejects[0].detail[:200]
        raise UserError(
            f"{len(rejects)} of {total} rows were rejected ("
            f"{', '.join(f'{n} x {reason}' for reason, n in reasons)}; first: {first}); "
            f"fix the source, or raise {field} (now {allowed:g})"
        )


def write_with_rejects(
    folder: Path, row_type: type[Row], name: str, rows: Iterable[Row], rejects: list[Reject]
) -> dict[str, int]:
    """Write `NAME.parquet` and `rejects.parquet`.

    Args:
        folder: The directory to write to.
        row_type: Row type of the kept rows.
        name: Name of their table.
        rows: The rows to keep.
        rejects: The rejected rows.

    Returns:
        How many rows were kept and dropped.
    """
    return {
        "kept": write_rows(folder / f"{name}.parquet", row_type, rows),
        "dropped": write_rows(folder / "rejects.parquet", Reject, rejects),
    }
