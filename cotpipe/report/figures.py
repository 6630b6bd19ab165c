"""All figures of an evaluation, as rows: of one checkpoint, or of two on the same problems."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from cotpipe.data.rows import Answered
from cotpipe.errors import UserError
from cotpipe.report.budgets import Graded, at_equal_accuracy, at_equal_length
from cotpipe.report.by_steps import hits_by_steps
from cotpipe.report.profile import ends_in_loop, quantile
from cotpipe.report.samples import bootstrap_means, count_votes, majority_at, pass_at
from cotpipe.report.statistics import (
    Change,
    Estimate,
    change_of_mean,
    change_of_share,
    holm,
    mean,
    share,
)

Side = Literal["first", "second", "difference"]
"""Of which of two checkpoints a figure is; the difference is the first minus the second."""
_SIDES: tuple[Side, Side] = ("first", "second")


@dataclass(frozen=True)
class Figure:
    """One figure of one checkpoint, or of the difference of two."""

    group: str
    name: str
    of: Side
    value: float
    unit: Literal["share", "tokens"]  # shares are in [0, 1]
    problems: int  # it is a figure of so many
    low: float | None = None  # 95 % interval
    high: float | None = None
    p_value: float | None = None
    model: str | None = None  # the checkpoint's name; None for a difference


@dataclass(frozen=True)
class Evaluated:
    """A checkpoint's answers to the held-out problems."""

    name: str
    greedy: Sequence[Answered]  # one per problem, ordered by problem id
    samples: Mapping[str, Sequence[Answered]] = field(default_factory=dict)  # by problem id

    @cached_property
    def graded(self) -> Graded:
        """Whether each answer is right, and its length."""
        return Graded([row.correct for row in self.greedy], [row.num_tokens for row in self.greedy])


def require_same_questions(first: Evaluated, second: Evaluated) -> None:
    """Raise `UserError` if two checkpoints were asked different questions."""
    asked = [{(row.problem_id, row.question) for row in one.greedy} for one in (first, second)]
    if asked[0] != asked[1]:
        shared = len(asked[0] & asked[1])
        raise UserError(
            f"{second.name} was evaluated on other problems: {len(asked[1])}, of which {shared} are "
            f"among the {len(asked[0])} of {first.name}; compare evaluations of the same split, "
            "max_problems and source"
        )


def figures_of(
    evaluated: Sequence[Evaluated],
    ks: Sequence[int],
    same: Callable[[str, str, str], bool],
    num_steps: Mapping[str, int],
) -> list[Figure]:
    """All figures, group by group; their p-values are corrected for the number of all tests (Holm).

    Args:
        evaluated: One checkpoint, or two that were asked the same questions.
        ks: The k of pass@k and maj@k; none without samples.
        same: Whether two final answers to a question are equal: gets both, and the question.
        num_steps: The number of steps of a rationale of each problem, where there is one.
    """
    found = [*_greedy(evaluated), *_tokens(evaluated)]
    if ks:
        found += _sampled(evaluated, ks, same)
    found += _by_steps(evaluated, num_steps)
    if len(evaluated) == 2:
        found += [*_by_pass_rate(*evaluated), *_budgets(*evaluated)]
    tested = [one for one in found if one.p_value is not None]
    corrected = holm([one.p_value for one in tested if one.p_value is not None])
    p_values = dict(zip(map(id, tested), corrected, strict=True))
    names = dict(zip(_SIDES, (one.name for one in evaluated), strict=False))
    return [replace(one, p_value=p_values.get(id(one)), model=names.get(one.of)) for one in found]


def _greedy(evaluated: Sequence[Evaluated]) -> Iterator[Figure]:
    for name, is_so in _SHARES.items():
        hits = [[is_so(row) for row in one.greedy] for one in evaluated]
        for side, found in zip(_SIDES, hits, strict=False):
            yield _figure("greedy", name, side, share(found), len(found))
        if len(evaluated) == 2:
            change = change_of_share(hits[1], hits[0])
            yield _figure("greedy", name, "difference", change, len(hits[0]))


_SHARES: Mapping[str, Callable[[Answered], bool]] = {
    "accuracy": lambda row: row.correct,
    "valid format": lambda row: row.valid_format,
    "cut off": lambda row: row.truncated,
    "ends in a loop": lambda row: ends_in_loop(row.completion),
    "without an answer": lambda row: row.predicted is None,
}


def _tokens(evaluated: Sequence[Evaluated]) -> Iterator[Figure]:
    group = "tokens of an answer"
    lengths = [one.graded.tokens for one in evaluated]
    for side, found in zip(_SIDES, lengths, strict=False):
        yield _figure(group, "mean", side, mean(found), len(found), "tokens")
    if len(evaluated) == 2:
        change = change_of_mean(lengths[1], lengths[0])
        yield _figure(group, "mean", "difference", change, len(lengths[0]), "tokens")
    for name, part in (("median", 0.5), ("90 % are at most", 0.9)):
        for side, found in zip(_SIDES, lengths, strict=False):
            yield Figure(group, name, side, quantile(found, part), "tokens", len(found))
    for name, right in (("mean of right answers", True), ("mean of wrong answers", False)):
        for side, one in zip(_SIDES, evaluated, strict=False):
            found = [row.num_tokens for row in one.greedy if row.correct == right]
            if found:
                yield _figure(group, name, side, mean(found), len(found), "tokens")


def _sampled(
    evaluated: Sequence[Evaluated], ks: Sequence[int], same: Callable[[str, str, str], bool]
) -> Iterator[Figure]:
    tables: dict[Side, list[list[float]]] = {
        side: [_of_samples(one.samples[row.problem_id], ks, same) for row in one.greedy]
        for side, one in zip(_SIDES, evaluated, strict=False)
    }
    if len(evaluated) == 2:
        tables["difference"] = [
            [ours - theirs for ours, theirs in zip(*pair, strict=True)]
            for pair in zip(tables["first"], tables["second"], strict=True)
        ]
    estimates = {side: bootstrap_means(table) for side, table in tables.items()}
    columns = [(group, str(k)) for group in ("pass@k", "maj@k") for k in ks]
    for place, (group, name) in enumerate(columns):
        for side, found in estimates.items():
            yield _figure(group, name, side, found[place], len(tables[side]))


def _of_samples(
    samples: Sequence[Answered], ks: Sequence[int], same: Callable[[str, str, str], bool]
) -> list[float]:
    """pass@k and then maj@k of a problem, for every k."""
    question = samples[0].question
    votes = count_votes(
        [(row.predicted, row.correct) for row in samples],
        lambda one, other: same(one, other, question),
    )
    return [*(pass_at(k, votes) for k in ks), *majority_at(ks, votes)]


def _by_steps(evaluated: Sequence[Evaluated], num_steps: Mapping[str, int]) -> Iterator[Figure]:
    group = "accuracy by steps of the rationale"
    for side, one in zip(_SIDES, evaluated, strict=False):
        answers = ((row.problem_id, row.correct) for row in one.greedy)
        for steps, hits in hits_by_steps(answers, num_steps):
            yield _figure(group, steps, side, share(hits), len(hits))


def _by_pass_rate(first: Evaluated, second: Evaluated) -> Iterator[Figure]:
    """The first checkpoint's accuracy by difficulty: how often the second solves a problem.

    As in Snell et al. 2024 (arXiv 2408.03314, section 3.2), difficulty is measured by samples of
    another checkpoint than that which is judged: by its own, chance alone would make problems easy.
    """
    hits: dict[str, list[bool]] = {name: [] for name in _DIFFICULTIES}
    for row in first.greedy:
        samples = second.samples.get(row.problem_id)
        if samples:
            rate = sum(one.correct for one in samples) / len(samples)
            hits[next(name for name, most in _DIFFICULTIES.items() if rate <= most)].append(
                row.correct
            )
    for name, found in hits.items():
        if found:
            group = "accuracy by how often the second is right"
            yield _figure(group, name, "first", share(found), len(found))


_DIFFICULTIES = {"never": 0.0, "up to half": 0.5, "more than half": 1 - 1e-9, "always": 1.0}
"""Classes of problems, with the highest share of right samples of each."""


def _budgets(first: Evaluated, second: Evaluated) -> Iterator[Figure]:
    number = len(first.greedy)
    for one in at_equal_length(first.graded, second.graded):
        group, name = "right within so many tokens", str(one.budget)
        yield _figure(group, name, "first", one.first, number)
        yield _figure(group, name, "second", one.second, number)
        yield _figure(group, name, "difference", one.change, number)
    for equal in at_equal_accuracy(first.graded, second.graded):
        group, name = "tokens needed for an accuracy", f"{100 * equal.accuracy:.1f} %"
        yield Figure(group, name, "first", equal.first, "tokens", number)
        yield Figure(group, name, "second", equal.second, "tokens", number)
        yield _figure(group, name, "difference", equal.change, number, "tokens")


def _figure(
    group: str,
    name: str,
    side: Side,
    found: Estimate | Change,
    problems: int,
    unit: Literal["share", "tokens"] = "share",
) -> Figure:
    p_value = found.p_value if isinstance(found, Change) else None
    return Figure(group, name, side, found.value, unit, problems, found.low, found.high, p_value)
