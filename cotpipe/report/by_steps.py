"""Answers by the number of steps of the teacher's rationale; long rationales are counted together."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

_MANY = 9


class Hits(NamedTuple):
    """Whether each answer to the problems with so many steps is right."""

    steps: str  # such as `3`, or `9 and more`
    right: list[bool]


def hits_by_steps(answers: Iterable[tuple[str, bool]], num_steps: Mapping[str, int]) -> list[Hits]:
    """Answers by the number of steps, fewest first.

    Args:
        answers: Problem ids, and whether the answer is right.
        num_steps: The number of steps of the teacher's rationale, by problem id; problems without
            one are left out.

    Example: `hits_by_steps([("a", True), ("b", False)], {"a": 2, "b": 12})` is
    `[Hits("2", [True]), Hits("9 and more", [False])]`.
    """
    found: dict[int, list[bool]] = {}
    for problem_id, right in answers:
        if steps := num_steps.get(problem_id):
            found.setdefault(min(steps, _MANY), []).append(right)
    return [
        Hits(f"{steps} and more" if steps == _MANY else str(steps), right)
        for steps, right in sorted(found.items())
    ]
