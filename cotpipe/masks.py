"""Structure-aware masks: which whole steps of a rationale are hidden, and in which order its steps are shown."""

import itertools
import random
from typing import Literal

from cotpipe.structure import StepGraph

MaskKind = Literal[
    "random", "scattered", "consecutive", "keep_ends", "critical", "leaves", "near_answer", "far_from_answer"
]
PLACEHOLDER = "[MASK]"


def choose_masked(
    kind: MaskKind, num_steps: int, num_masked: int, rng: random.Random, graph: StepGraph | None = None
) -> list[int]:
    """The indices of the steps to hide, ascending, at most `num_masked` of `range(num_steps)`.

    - `random`: any steps.
    - `scattered`: spread over the rationale: one step out of each of `num_masked` equal stretches.
    - `consecutive`: one run of steps.
    - `keep_ends`: any steps but the first and the last, which always stay (so it may hide fewer).

    The others go by the step graph, and choose by chance among equals:

    - `critical`: the steps of the longest chain of uses that ends at the answer; then the rest.
    - `leaves`: the steps that use no earlier one; then the rest.
    - `near_answer`, `far_from_answer`: by how many uses lie between a step and the answer; steps that the answer does
      not depend on come last.

    >>> choose_masked("keep_ends", 4, 2, random.Random(0))
    [1, 2]
    """
    num_masked = min(num_masked, num_steps)
    match kind:
        case "random":
            return sorted(rng.sample(range(num_steps), num_masked))
        case "scattered":
            edges = [stretch * num_steps // num_masked for stretch in range(num_masked + 1)] if num_masked else []
            return [rng.randrange(low, high) for low, high in itertools.pairwise(edges)]
        case "consecutive":
            start = rng.randint(0, num_steps - num_masked)
            return list(range(start, start + num_masked))
        case "keep_ends":
            inner = range(1, num_steps - 1)
            return sorted(rng.sample(inner, min(num_masked, len(inner))))
        case "critical" | "leaves" | "near_answer" | "far_from_answer":
            assert graph, f"{kind} masks go by the step graph"
            order = rng.sample(range(num_steps), num_steps)
            return sorted(sorted(order, key=_priority(kind, graph).__getitem__)[:num_masked])


def _priority(kind: MaskKind, graph: StepGraph) -> list[int]:
    """For each step a number; the steps with the lowest are hidden first."""
    steps = range(len(graph.uses))
    if kind == "critical":
        return [int(step not in graph.critical) for step in steps]
    if kind == "leaves":
        return [int(step not in graph.leaves) for step in steps]
    unrelated = len(graph.uses)
    if kind == "near_answer":
        return [away if away >= 0 else unrelated for away in graph.distance]
    return [-away if away >= 0 else 1 for away in graph.distance]


def published_num_masked(num_steps: int) -> int:
    """Stage 2's published count: `max(3, floor(0.5 n))` steps, of which at least one stays (METHOD, stage 2)."""
    return min(max(3, num_steps // 2), num_steps - 1)


def num_masked_at(share: float, num_steps: int) -> int:
    """How many of `num_steps` steps are hidden at a share in [0, 1]: rounded, so all of them a little before 1."""
    return min(int(share * num_steps + 0.5), num_steps)
