"""The level and the power of the gate: how often simulated candidates are promoted.

    python benchmarks/gate.py [--gates 10000] [--accuracy-margin 0.02] [--token-margin 0.05]

The other checkpoint solves 70 % of the problems, with answers of about 100 tokens, at most 512. Of every
candidate's verdicts 10 % differ from its by chance alone, and each answer's length by about 20 %.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cotpipe.report.gate import all_of, keeps_accuracy, keeps_length
from cotpipe.report.score import least_pairs

_SIZES = (50, 100, 200, 1000)
_SOLVED, _CHANGED = 0.7, 0.05  # shares; as many problems are gained by chance as are lost
_TOKENS, _SPREAD, _NOISE, _LONGEST = 100.0, 0.3, 0.2, 512


@dataclass(frozen=True)
class Candidate:
    """What is true of a candidate."""

    name: str
    gain: float  # of accuracy, share of the problems
    growth: float  # of the mean length, share of it
    runaways: float = 0.0  # share of the answers that run to the length limit


def candidates(accuracy_margin: float, token_margin: float) -> tuple[Candidate, ...]:
    """Two that must not be promoted, one that need not be, and one that should be."""
    return (
        Candidate("loses the accuracy margin, 10 % shorter", -accuracy_margin, -0.1),
        Candidate("2 points better, grows by the token margin", 0.02, token_margin, 0.01),
        Candidate("equal", 0.0, 0.0),
        Candidate("2 points better, 10 % shorter", 0.02, -0.1),
    )


def draws(
    candidate: Candidate, problems: int, gates: int
) -> Iterator[tuple[list[bool], list[bool], list[float], list[float]]]:
    """Verdicts and lengths before and after, of so many simulated evaluations."""
    rng = np.random.default_rng([problems, gates, len(candidate.name)])
    losses = _CHANGED + max(-candidate.gain, 0.0)
    gains = _CHANGED + max(candidate.gain, 0.0)
    mean = (1 + candidate.growth) * _TOKENS
    finished = (mean - candidate.runaways * _LONGEST) / (1 - candidate.runaways) / _TOKENS
    for _ in range(gates):
        before = rng.random(problems) < _SOLVED
        changes = rng.random(problems)
        lost, gained = changes < losses / _SOLVED, changes < gains / (1 - _SOLVED)
        after = np.where(before, ~lost, gained)
        first = rng.lognormal(np.log(_TOKENS) - _SPREAD**2 / 2, _SPREAD, problems)
        noise = rng.lognormal(-(_NOISE**2) / 2, _NOISE, problems)
        runs_away = rng.random(problems) < candidate.runaways
        second = np.where(runs_away, _LONGEST, finished * first * noise)
        yield before.tolist(), after.tolist(), first.tolist(), second.tolist()


def main() -> None:
    """Simulate, and print a Markdown table of the shares that are promoted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gates", type=int, default=10_000)
    parser.add_argument("--accuracy-margin", type=float, default=0.02)
    parser.add_argument("--token-margin", type=float, default=0.05)
    options = parser.parse_args()
    chosen = candidates(options.accuracy_margin, options.token_margin)
    rows = [["held-out problems", *(candidate.name for candidate in chosen)], ["---"] * 5]
    for problems in _SIZES:
        shares = [_promoted(one, problems, options) for one in chosen]
        few = problems < least_pairs(options.accuracy_margin)
        shown = ["cannot decide" if few else f"{100 * share:.1f} %" for share in shares]
        rows.append([str(problems), *shown])
        assert not (few and any(shares)), "it has promoted where it cannot decide"
    sys.stdout.writelines(f"| {' | '.join(row)} |\n" for row in rows)


def _promoted(candidate: Candidate, problems: int, options: argparse.Namespace) -> float:
    """The share of gates that promote the candidate."""
    promoted = 0
    for before, after, first, second in draws(candidate, problems, options.gates):
        accuracy = keeps_accuracy(before, after, options.accuracy_margin)
        length = keeps_length(first, second, options.token_margin, _LONGEST)
        promoted += all_of([accuracy, length]).promote
    return promoted / options.gates


if __name__ == "__main__":
    main()
