"""The step graph of a rationale: which steps use numbers produced by earlier steps."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cotpipe.rationale.answers import answers_match

_NUMBER = re.compile(r"(?<![\w.])\d[\d,]{0,20}(?:\.\d{1,10})?")


@dataclass(frozen=True)
class RationaleGraph:
    """The dependencies between the steps of a rationale, numbered from 0.

    `distance` is the number of edges between a step and the answer: 0 for the step that states the
    answer, -1 for steps that the answer does not depend on. `critical` is the longest dependency
    chain that ends at the answer.
    """

    uses: list[list[int]]  # per step, the earlier steps whose numbers it uses, ascending
    distance: list[int]
    critical: list[int]  # ascending

    @property
    def leaves(self) -> list[int]:
        """The steps that use no earlier step, only the question."""
        return [step for step, used in enumerate(self.uses) if not used]


def rationale_graph(question: str, steps: Sequence[str], answer: str) -> RationaleGraph:
    """Build the graph from the numbers in the texts.

    A step produces the number after its last `=`, or else all numbers that are new (not in the
    question or an earlier step). It uses an earlier step if it mentions a number which that step
    was the last to produce. A number that coincides by chance counts as a use.

    >>> steps = ["3 x 4 = 12 apples", "He is tall", "12 + 1 = 13"]
    >>> rationale_graph("Tom has 3 bags of 4.", steps, "13").uses
    [[], [], [0]]
    """
    known = set(_numbers(question))
    producer: dict[str, int] = {}
    uses: list[list[int]] = []
    for number, step in enumerate(steps):
        mentioned, produced = _read(step, known)
        uses.append(sorted({producer[value] for value in mentioned if value in producer}))
        producer |= dict.fromkeys(produced, number)
        known |= {*mentioned, *produced}
    last = next(
        (step for value, step in reversed(producer.items()) if answers_match(value, answer)),
        len(steps) - 1,
    )
    return RationaleGraph(uses, _distances(uses, last), _longest_chain(uses, last))


def _read(step: str, known: set[str]) -> tuple[list[str], list[str]]:
    """The numbers that a step mentions and those that it produces."""
    before, equals, result = step.rpartition("=")
    if equals:
        produced = _numbers(result)[:1]
        return _numbers(before) + _numbers(result)[1:], produced
    numbers = _numbers(step)
    return [value for value in numbers if value in known], [
        value for value in numbers if value not in known
    ]


def _numbers(text: str) -> list[str]:
    return [_plain(match.group()) for match in _NUMBER.finditer(text)]


def _plain(number: str) -> str:
    whole, _, decimals = number.replace(",", "").partition(".")
    decimals = decimals.rstrip("0")
    return f"{whole}.{decimals}" if decimals else whole


def _distances(uses: Sequence[Sequence[int]], last: int) -> list[int]:
    distance = [-1] * len(uses)
    reached = [last] if uses else []
    for step in reached:  # breadth first; the list grows while it is read
        if step == last:
            distance[step] = 0
        for used in uses[step]:
            if distance[used] < 0:
                distance[used] = distance[step] + 1
                reached.append(used)
    return distance


def _longest_chain(uses: Sequence[Sequence[int]], last: int) -> list[int]:
    if not uses:
        return []
    length = [1] * len(uses)
    for step, used in enumerate(uses):  # steps use only earlier steps
        length[step] += max((length[one] for one in used), default=0)
    chain = [last]
    while used := uses[chain[-1]]:
        chain.append(max(used, key=lambda one: (length[one], one)))
    return sorted(chain)
