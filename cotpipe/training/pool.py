"""The prompts of a GRPO stage: which comes next, and how much help it gives."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cotpipe.data.rows import Example
from cotpipe.recipe.examples import PassRates

_SKIPPED_ROUNDS = 2
"""Rounds that a prompt waits whose pass rate teaches little."""
_HELPED_ENOUGH = 0.5
"""From this pass rate on, a problem is shown with less help."""
_UNKNOWN = 0.5
"""The pass rate that is expected with an amount of help that was not tried yet: worth a trial."""


@dataclass(eq=False)
class _Entry:
    """A problem (or, without pass rates, one row of the examples)."""

    rows: list[int]  # rows of the examples, from the bare question to the most help
    pass_rate: float  # expected, at the current rung
    rung: int = 0  # position in `rows`
    drawn: int = 0  # how often

    @property
    def row(self) -> int:
        """The row that is shown next."""
        return self.rows[self.rung]


class PromptPool:
    """Chooses the prompts of a stage, in the order of its examples or by pass rate; no randomness.

    Examples without pass rates come once each, from first to last, then again. Those with pass
    rates are a ladder per problem: it starts at the bare question if the student sometimes solves
    it, else one rung higher. Where all completions of a prompt are wrong, the problem climbs to
    more help; where half of them are right with help, it steps down towards the bare question.
    Problems whose pass rate lies outside the recipe's range teach little and come less often; what a
    new rung does is not known, so it is tried in turn. Only a share of an optimizer step shows help:
    a student that trains on little else forgets how to answer without.
    """

    def __init__(
        self, examples: Sequence[Example], usable: Sequence[int], wanted: PassRates | None = None
    ) -> None:
        """Group the rows by problem.

        Args:
            examples: All rows of the stage.
            usable: Indices of the rows that are not too long.
            wanted: Which pass rates are preferred, and how many prompts may show help.
        """
        self._wanted = wanted or PassRates()
        self._examples = examples
        ladders: dict[Any, list[int]] = {}
        for row in usable:
            example = examples[row]
            ladders.setdefault(row if example.pass_rate is None else example.problem_id, []).append(
                row
            )
        self._entries = [self._entry(rows) for rows in ladders.values()]

    def _entry(self, rows: list[int]) -> _Entry:
        rate = self._examples[rows[0]].pass_rate
        if rate is None:
            return _Entry(rows, _UNKNOWN)
        if not self._wanted.max_helped:
            rows = rows[:1]
        if rate == 0 and len(rows) > 1:
            return _Entry(rows, _UNKNOWN, rung=1)
        return _Entry(rows, rate)

    def __len__(self) -> int:
        """The number of problems, or of rows without pass rates."""
        return len(self._entries)

    def draw(self, count: int, taken: Sequence[int] = ()) -> list[int]:
        """The rows of the next prompts; fewer than `count`, or none in place of others, where it runs dry.

        Args:
            count: How many.
            taken: Rows that were drawn before for the same optimizer step: their problems do not
                come again.
        """
        used = set(taken)
        free = [entry for entry in self._entries if not used.intersection(entry.rows)]
        if taken and len(free) < count:
            return []
        ordered = sorted(free, key=self._turn)  # stable: else in the order of the examples
        helped = [entry for entry in ordered if self._shows_help(entry.row)]
        most = math.ceil(self._wanted.max_helped * (len(taken) + count))
        most -= sum(map(self._shows_help, taken))
        others = len(ordered) - len(helped)
        held_back = set(helped[max(most, count - others, 0) :])
        chosen = [entry for entry in ordered if entry not in held_back][:count]
        for entry in chosen:
            entry.drawn += 1
        return [entry.row for entry in chosen]

    def _turn(self, entry: _Entry) -> int:
        teaches = self._wanted.lowest <= entry.pass_rate <= self._wanted.highest
        return entry.drawn if teaches else entry.drawn * (1 + _SKIPPED_ROUNDS) + _SKIPPED_ROUNDS

    def tell(self, pass_rates: Mapping[int, float]) -> None:
        """Take note of the share of right completions of rows that were drawn."""
        for entry in self._entries:
            row = entry.row
            if row not in pass_rates or self._examples[row].pass_rate is None:
                continue
            observed = pass_rates[row]
            if observed == 0 and entry.rung + 1 < len(entry.rows):
                entry.rung, entry.pass_rate = entry.rung + 1, _UNKNOWN
            elif observed >= _HELPED_ENOUGH and entry.rung:
                entry.rung, entry.pass_rate = entry.rung - 1, _UNKNOWN
            else:
                entry.pass_rate = (entry.pass_rate + observed) / 2

    def _shows_help(self, row: int) -> bool:
        return self._examples[row].pass_rate is not None and not self.is_bare(row)

    def is_bare(self, row: int) -> bool:
        """Whether a row shows the bare question."""
        return len(self._examples[row].masked) == len(self._examples[row].teacher_steps)

    def state(self) -> list[list[float]]:
        """What changes, as JSON, for a training state."""
        return [[entry.pass_rate, entry.rung, entry.drawn] for entry in self._entries]

    def restore(self, state: Sequence[Sequence[float]]) -> None:
        """Go on from what `state` returned."""
        for entry, (pass_rate, rung, drawn) in zip(self._entries, state, strict=True):
            entry.pass_rate, entry.rung, entry.drawn = pass_rate, int(rung), int(drawn)
