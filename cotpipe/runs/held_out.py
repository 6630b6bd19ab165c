"""How many held-out problems a run will ask, before any training."""

import pyarrow.parquet as pq

from cotpipe.data.problems.stored import PROBLEMS
from cotpipe.data.splits import position_of, split_at
from cotpipe.recipe.model import Recipe
from cotpipe.store.artifacts import Store
from cotpipe.store.records import Reference


def count_held_out(store: Store, problems: Reference, recipe: Recipe) -> int:
    """The number of problems that an evaluation of the recipe will ask, of these `problems`."""
    shares = recipe.problems.splits.by_name()
    table = pq.read_table(
        store.path(store.require(problems), PROBLEMS), columns=["problem_id", "split"]
    )
    names, splits = table["problem_id"].to_pylist(), table["split"].to_pylist()
    count: int = sum(
        (split or split_at(position_of(name), shares)) == recipe.evaluation.split
        for name, split in zip(names, splits, strict=True)
    )
    return min(count, recipe.evaluation.max_problems or count)
