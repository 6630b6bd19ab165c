"""How many held-out problems batches of problems have, before any step of a run."""

from collections.abc import Iterable

from cotpipe.data.problems.stored import PROBLEMS
from cotpipe.data.rows import Problem, read_table
from cotpipe.data.splits import position_of, split_at
from cotpipe.recipe.model import Recipe
from cotpipe.store.artifacts import Store
from cotpipe.store.records import Reference


def count_held_out(store: Store, batches: Iterable[Reference], recipe: Recipe) -> int:
    """The number of different problems that an evaluation of the recipe would ask."""
    shares = recipe.problems.splits.by_name()
    found: set[str] = set()
    for batch in batches:
        record = store.find(batch)
        assert record, "made earlier in this run, or kept by the registry"
        table = read_table(store.path(record, PROBLEMS), Problem)
        names, splits = table["problem_id"].to_pylist(), table["split"].to_pylist()
        found |= {
            name
            for name, split in zip(names, splits, strict=True)
            if (split or split_at(position_of(name), shares)) == recipe.evaluation.split
        }
    return min(len(found), recipe.evaluation.max_problems or len(found))
