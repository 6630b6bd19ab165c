"""Verifying every byte of a store."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

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
    sizes = [sum(file.size for file in record.files) for record in records]

    def check(record: Record) -> Checked:
        damaged = store.damaged_files(record)
        if damaged and not store.is_marked_damaged(record):
            store.mark_damaged(record, damaged)
        return Checked(record.reference, damaged)

    done, found = 0, []
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        for size, checked in zip(sizes, pool.map(check, records), strict=True):
            found.append(checked)
            done += size
            report(done, sum(sizes))
    return found
