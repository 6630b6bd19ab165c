"""The gate: whether a candidate is shown to be no worse than another checkpoint, within margins."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from cotpipe.report.betting import growth_bound, least_problems
from cotpipe.report.score import least_pairs
from cotpipe.report.statistics import change_of_share
from cotpipe.report.summary import percent, require_same_problems

if TYPE_CHECKING:
    import pandas as pd

Decision = Literal["promoted", "kept back", "cannot decide"]
"""`kept back`: it may be worse. `cannot decide`: too few problems, even for equal checkpoints."""


@dataclass(frozen=True)
class Margins:
    """What a candidate may lose at most."""

    accuracy: float  # share of the problems, in [0, 1]
    tokens: float  # growth of the mean answer length, as a share of it
    longest: int  # the length limit of an answer, in tokens


@dataclass(frozen=True)
class Verdict:
    """A decision, and why."""

    decision: Decision
    why: str

    @property
    def promote(self) -> bool:
        """Whether the candidate may take the other checkpoint's place."""
        return self.decision == "promoted"


def keeps_accuracy(before: Sequence[bool], after: Sequence[bool], margin: float) -> Verdict:
    """Whether a candidate is shown to lose no more accuracy than the margin.

    The lower bound of Tango's 95 % interval decides, so of the candidates that lose the whole margin at
    most 2.5 % pass; `benchmarks/gate.py` shows it.

    Args:
        before: Whether the other checkpoint solves each problem.
        after: Whether the candidate solves it.
        margin: The maximum loss (share of the problems, in [0, 1]).
    """
    change = change_of_share(before, after)
    figures = f"accuracy {percent(change)}"
    if few := too_few(len(before), margin):
        return Verdict("cannot decide", f"{few}; {figures}")
    if change.low < -margin:
        why = f"it may lose more than {100 * margin:g} points of accuracy; {figures}"
        return Verdict("kept back", why)
    return Verdict("promoted", figures)


def keeps_length(
    before: Sequence[float], after: Sequence[float], margin: float, longest: int
) -> Verdict:
    """Whether a candidate is shown to write no longer answers than the margin allows.

    An upper 97.5 % bound of the growth decides, which holds for any distribution of lengths.

    Args:
        before: The other checkpoint's length for each problem, in tokens.
        after: The candidate's, in tokens.
        margin: The maximum growth, as a share of the mean length before.
        longest: The length limit of an answer, in tokens.
    """
    first, second = fmean(before), fmean(after)
    if not first:
        return Verdict("kept back", "the other checkpoint writes nothing to compare lengths with")
    most = growth_bound(before, after, longest)
    growth = f"{100 * (second / first - 1):+.1f} %"
    bound = f"at most {100 * most:+.1f} %" if isfinite(most) else "no growth can be excluded"
    figures = f"{first:.1f} to {second:.1f} tokens, {growth}, {bound}"
    if most <= margin:
        return Verdict("promoted", figures)
    why = f"it may write more than {100 * margin:g} % longer; {figures}"
    if margin and len(before) < (least := least_problems(first, longest, margin)):
        few = (
            f"{len(before)} held-out problems are too few to show a growth of at most {100 * margin:g} % "
            f"at {first:.0f} tokens of {longest}: equal answers pass from {least} on"
        )
        return Verdict("cannot decide", f"{few}; {figures}")
    return Verdict("kept back", why)


def too_few(problems: int, accuracy_margin: float) -> str:
    """Says that so few problems decide nothing, and how many do; empty if they are enough."""
    if not accuracy_margin or problems >= (least := least_pairs(accuracy_margin)):
        return ""
    return (
        f"{problems} held-out problems are too few to show a loss of at most {100 * accuracy_margin:g} "
        f"points of accuracy: equal checkpoints pass from {least} on"
    )


def judge(before: "pd.DataFrame", after: "pd.DataFrame", margins: Margins) -> Verdict:
    """Compare the evaluation rows of a checkpoint and of a candidate; both tests must pass."""
    require_same_problems(before, after)
    return all_of(
        [
            keeps_accuracy(before["correct"].tolist(), after["correct"].tolist(), margins.accuracy),
            keeps_length(
                before["num_tokens"].tolist(),
                after["num_tokens"].tolist(),
                margins.tokens,
                margins.longest,
            ),
        ]
    )


def all_of(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict of several comparisons: the worst decision, with the reasons for it first."""
    order: tuple[Decision, ...] = ("kept back", "cannot decide", "promoted")
    ranked = sorted(verdicts, key=lambda verdict: order.index(verdict.decision))
    return Verdict(ranked[0].decision, "; ".join(verdict.why for verdict in ranked))
