"""What the artifacts of a run cost, as far as their records tell."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cotpipe.store.lookup import READS_AT_ONCE, Artifacts
from cotpipe.store.records import SHARDS, Record, Reference


@dataclass(frozen=True)
class Cost:
    """What one artifact took to make; None: not recorded."""

    record: Record
    seconds: float  # of the attempt that was committed
    sampled: int | None  # tokens of all completions and answers that a model gave for it
    trained: int | None  # tokens of all rows that it was trained on, prompts among them


def lineage(store: Artifacts, references: Iterable[Reference]) -> list[Record]:
    """The records of artifacts and of all that they were made from, each after its inputs.

    Artifacts that are no longer in the store are left out.
    """
    found: dict[Reference, Record | None] = {}

    def visit(reference: Reference) -> None:
        if reference in found:
            return
        record = store.record(reference)
        found[reference] = None  # its place is after its inputs
        if record:
            for kind, fingerprint in record.inputs.items():
                visit(Reference(kind=kind, fingerprint=fingerprint))
            del found[reference]
            found[reference] = record

    for reference in references:
        visit(reference)
    return [record for record in found.values() if record]


def costs(store: Artifacts, records: Iterable[Record]) -> list[Cost]:
    """The cost of each artifact; `store` has the records of its shards, which count tokens, too."""
    return [
        Cost(one, one.seconds, _sampled(store, one), one.counts.get("trained_tokens"))
        for one in records
    ]


def _sampled(store: Artifacts, record: Record) -> int | None:
    """The tokens that its step counted, else those of its shards; None if one of them is gone."""
    if "sampled_tokens" in record.counts:
        return record.counts["sampled_tokens"] + record.counts.get("validated_tokens", 0)
    shards = [part for part in record.parts if part.kind == SHARDS]
    if not shards:
        return None
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        found = list(pool.map(store.record, shards))
    tokens = [shard.counts.get("tokens") if shard else None for shard in found]
    known = [count for count in tokens if count is not None]
    return sum(known) if len(known) == len(tokens) else None
