"""Structure-aware masks: which steps of a rationale to hide from the student.

A mask is a function that chooses steps; recipes can also name user functions (docs/extending.md).
"""

import heapq
import itertools
import random
from collections.abc import Callable, Sequence

from cotpipe.errors import UserError
from cotpipe.extensions import Registry, is_own
from cotpipe.rationale.graph import RationaleGraph

PLACEHOLDER = "[MASK]"

Mask = Callable[[int, int, random.Random, RationaleGraph], Sequence[int]]
"""Takes the number of steps, the number to hide, a random generator and the step graph; returns
the indices of the steps to hide, which may be fewer."""

masks: Registry[Mask] = Registry("mask")


def choose_masked(
    kind: str, num_steps: int, num_masked: int, rng: random.Random, graph: RationaleGraph
) -> list[int]:
    """The indices of the steps to hide, ascending.

    Args:
        kind: Name of a mask.
        num_steps: Number of steps in the rationale.
        num_masked: Maximum number of steps to hide; capped at `num_steps`.
        rng: Random generator.
        graph: The step graph, for masks that use it.

    Raises `UserError` if a user's mask returns anything but distinct, valid indices.

    >>> from cotpipe.rationale.graph import rationale_graph
    >>> graph = rationale_graph("", ["a", "b", "c", "d"], "1")
    >>> choose_masked("keep_ends", 4, 2, random.Random(0), graph)
    [1, 2]
    """
    chosen = masks.find(kind)(num_steps, min(num_masked, num_steps), rng, graph)
    if is_own(kind):
        _check(kind, chosen, num_steps)
    return sorted(chosen)


@masks.register("random")
def any_steps(
    num_steps: int, num_masked: int, rng: random.Random, graph: RationaleGraph
) -> list[int]:
    """Random steps."""
    return rng.sample(range(num_steps), num_masked)


@masks.register("scattered")
def scattered(
    num_steps: int, num_masked: int, rng: random.Random, graph: RationaleGraph
) -> list[int]:
    """Spread over the rationale: one random step from each of `num_masked` equal segments."""
    if not num_masked:
        return []
    edges = [stretch * num_steps // num_masked for stretch in range(num_masked + 1)]
    return [rng.randrange(low, high) for low, high in itertools.pairwise(edges)]


@masks.register("consecutive")
def consecutive(
    num_steps: int, num_masked: int, rng: random.Random, graph: RationaleGraph
) -> list[int]:
    """Consecutive steps, from a random start."""
    start = rng.randint(0, num_steps - num_masked)
    return list(range(start, start + num_masked))


@masks.register("keep_ends")
def keep_ends(
    num_steps: int, num_masked: int, rng: random.Random, graph: RationaleGraph
) -> list[int]:
    """Random steps except the first and the last; may hide fewer."""
    inner = range(1, num_steps - 1)
    return rng.sample(inner, min(num_masked, len(inner)))


@masks.register("critical")
def critical(
    num_steps: int, num_masked: int, rng: random.Random, graph: RationaleGraph
) -> list[int]:
    """The longest dependency chain that ends at the answer first, then the other steps."""
    return _first(num_masked, rng, [int(step not in graph.critical) for step in range(num_steps)])


@masks.register("leaves")
def leaves(num_steps: int, num_masked: int, rng: random.Random, graph: RationaleGraph) -> list[int]:
    """Steps that use no earlier step first, then the other steps."""
    return _first(num_masked, rng, [int(step not in graph.leaves) for step in range(num_steps)])


@masks.register("near_answer")
def near_answer(
    num_steps: int, num_masked: int, rng: random.Random, graph: RationaleGraph
) -> list[int]:
    """Steps nearest to the answer first; steps that it does not depend on last."""
    return _first(num_masked, rng, [away if away >= 0 else num_steps for away in graph.distance])


@masks.register("far_from_answer")
def far_from_answer(
    num_steps: int, num_masked: int, rng: random.Random, graph: RationaleGraph
) -> list[int]:
    """Steps farthest from the answer first; steps that it does not depend on last."""
    return _first(num_masked, rng, [-away if away >= 0 else 1 for away in graph.distance])


def published_num_masked(num_steps: int) -> int:
    """The published mask size of stage 2: `max(3, floor(0.5 n))`, leaving at least one step."""
    return min(max(3, num_steps // 2), num_steps - 1)


def num_masked_at(share: float, num_steps: int) -> int:
    """The number of steps hidden at a share in [0, 1], rounded to the nearest integer."""
    return min(int(share * num_steps + 0.5), num_steps)


def _first(num_masked: int, rng: random.Random, priority: Sequence[int]) -> list[int]:
    """The steps with the lowest priority values; ties are broken at random."""
    shuffled = rng.sample(range(len(priority)), len(priority))
    return heapq.nsmallest(num_masked, shuffled, key=priority.__getitem__)


def _check(kind: str, chosen: Sequence[int], num_steps: int) -> None:
    steps = range(num_steps)
    if not isinstance(chosen, list | tuple) or any(
        type(step) is not int or step not in steps for step in chosen
    ):
        raise UserError(
            f"{kind} returned {chosen!r}, not a list of indices of {num_steps} steps; "
            "fix the function"
        )
    if len(set(chosen)) < len(chosen):
        raise UserError(f"{kind} returned {chosen!r}, which repeats a step; fix the function")
