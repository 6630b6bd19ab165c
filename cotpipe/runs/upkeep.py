"""Verifying every byte of a store."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cotpipe.errors import RunError
from cotpipe.store.artifacts import Store
from cotpipe.store.lookup import READS_AT_ONCE
from cotpipe.store.records import Record, Reference


@dataclass(frozen=True)
class Checked:
    """The result of verifying one artifact."""

    reference: Reference
    damaged: list[str]  # files that do not match the record


def verify(store: Store, report: Callable[[int, int], None]) -> list[Checked]:
    """Hash every file of every artifact, and mark damaged artifacts so that no run uses them.

    Calls `report` with the number of bytes verified and the total.
    """
    records = store.records()
    listed = store.storage.sizes("")
    sizes = [sum(file.size for file in record.files) for record in records]
    done, total, found = 0, sum(sizes), []

    def check(record: Record) -> Checked | None:
        """None if a `gc` or a new attempt has removed the artifact since it was listed."""
        try:
            damaged = store.damaged_files(record, listed)
        except RunError:
            if store.record(record.reference) == record:
                raise
            return None
        if damaged and store.record(record.reference) != record:
            return None
        if damaged and not store.is_marked_damaged(record):
            store.mark_damaged(record, damaged)
        return Checked(record.reference, damaged)

    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        for size, checked in zip(sizes, pool.map(check, records), strict=True):
            if checked:
                found.append(checked)
            done += size
            report(done, total)
    return found
