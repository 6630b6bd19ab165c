"""Which shard a problem falls into, and what one problem more or less changes."""

from hypothesis import given
from hypothesis import strategies as st

from cotpipe.steps.sharding import shards_of

_IDS = st.sets(st.text(max_size=8), min_size=1, max_size=200)


def shards(ids: set[str], size: int) -> list[tuple[str, ...]]:
    ordered = sorted(ids)
    return [tuple(ordered[one] for one in shard) for shard in shards_of(ordered, size)]


@given(_IDS, st.integers(1, 20))
def test_every_problem_is_in_one_shard_of_the_size_at_most(ids, size):
    found = shards(ids, size)
    assert sorted(one for shard in found for one in shard) == sorted(ids)
    assert max(map(len, found)) <= size


@given(_IDS, st.integers(1, 20))
def test_one_problem_less_changes_its_own_shard_and_at_most_the_neighbour_that_it_joins(ids, size):
    whole = set(shards(ids, size))
    for gone in sorted(ids)[:5]:
        left = set(shards(ids - {gone}, size)) if len(ids) > 1 else set()
        changed = {one for shard in whole - left for one in shard}
        assert gone in changed
        assert len(changed) <= size + 1
        assert len(left - whole) <= 1


def test_problems_that_share_an_id_share_a_shard():
    assert shards_of(["a", "a", "a"], 2) == [[0, 1, 2]]
