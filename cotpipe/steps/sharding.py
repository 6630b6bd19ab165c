"""Cutting requests into shards by a hash of the problem's id, so that few shards ever change."""

import hashlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence

_KEYS = 2**64


def shards_of(ids: Sequence[str], size: int) -> list[list[int]]:
    """The positions of the ids in shards of at most `size`, all in the order of the ids' hashes.

    A range of hashes that holds more than `size` ids is cut in half, and so on. So one id more or
    less changes the shard that holds it, and at most makes two of one or one of two; shards of a
    fixed number of ids would all move. The price: shards are between half and completely full.
    """
    keys = [_key(one) for one in ids]
    order = sorted(range(len(ids)), key=lambda position: (keys[position], ids[position]))
    ordered = [keys[position] for position in order]

    def cut(start: int, stop: int, low: int, high: int) -> Iterator[list[int]]:
        if stop - start <= size or high - low == 1:
            if start < stop:
                yield order[start:stop]
            return
        half = (low + high) // 2
        middle = bisect_left(ordered, half, start, stop)
        yield from cut(start, middle, low, half)
        yield from cut(middle, stop, half, high)

    return list(cut(0, len(ids), 0, _KEYS))


def _key(problem_id: str) -> int:
    return int.from_bytes(hashlib.sha256(f"shard:{problem_id}".encode()).digest()[:8], "big")
