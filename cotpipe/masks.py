"""Structure-aware masks: which whole steps of a rationale are hidden, and in which order its steps are shown."""

import itertools
import random
from typing import Literal

MaskKind = Literal["random", "scattered", "consecutive", "keep_ends"]
PLACEHOLDER = "[MASK]"


def choose_masked(kind: MaskKind, num_steps: int, num_masked: int, rng: random.Random) -> list[int]:
    """The indices of the steps to hide, ascending, at most `num_masked` of `range(num_steps)`.

    - `random`: any steps.
    - `scattered`: spread over the rationale: one step out of each of `num_masked` equal stretches.
    - `consecutive`: one run of steps.
    - `keep_ends`: any steps but the first and the last, which always stay (so it may hide fewer).

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


def published_num_masked(num_steps: int) -> int:
    """Stage 2's published count: `max(3, floor(0.5 n))` steps, of which at least one stays (METHOD, stage 2)."""
    return min(max(3, num_steps // 2), num_steps - 1)


def num_masked_at(share: float, num_steps: int) -> int:
    """How many of `num_steps` steps are hidden at a share in [0, 1]: rounded, so all of them a little before 1."""
    return min(int(share * num_steps + 0.5), num_steps)
