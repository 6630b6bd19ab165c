"""All figures of an evaluation, as rows: of one checkpoint, or of two on the same problems."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from cotpipe.data.rows import Answered
from cotpipe.errors import UserError
from cotpipe.report.budgets import Graded, at_equal_accuracy, at_equal_length
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

CHANGE = "change"
"""Stands in the place of a checkpoint for what the first has more than the second."""
_MANY_STEPS = 10


@dataclass(frozen=True)
class Figure:
    """One figure of one checkpoint, or of the change from the second checkpoint to the first."""

    group: str
    name: str
    checkpoint: str
    value: float
    unit: Literal["share", "tokens"]  # shares are in [0, 1]
    problems: int  # it is a figure of so many
    low: float | None = None  # 95 % interval
    high: float | None = None
    p_value: float | None = None


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
    return [replace(one, p_value=p_values.get(id(one))) for one in found]


def _greedy(evaluated: Sequence[Evaluated]) -> Iterator[Figure]:
    for name, is_so in _SHARES.items():
        hits = [[is_so(row) for row in one.greedy] for one in evaluated]
        for one, found in zip(evaluated, hits, strict=True):
            yield _figure("greedy", name, one.name, share(found), len(found))
        if len(evaluated) == 2:
            change = change_of_share(hits[1], hits[0])
            yield _figure("greedy", name, CHANGE, change, len(hits[0]))


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
    for one, found in zip(evaluated, lengths, strict=True):
        yield _figure(group, "mean", one.name, mean(found), len(found), "tokens")
    if len(evaluated) == 2:
        change = change_of_mean(lengths[1], lengths[0])
        yield _figure(group, "mean", CHANGE, change, len(lengths[0]), "tokens")
    for name, part in (("median", 0.5), ("90 % are at most", 0.9)):
        for one, found in zip(evaluated, lengths, strict=True):
            value = quantile(found, part)
            yield Figure(group, name, one.name, value, "tokens", len(found))
    for name, right in (("mean of right answers", True), ("mean of wrong answers", False)):
        for one in evaluated:
            found = [row.num_tokens for row in one.greedy if row.correct == right]
            if found:
                yield _figure(group, name, one.name, mean(found), len(found), "tokens")


def _sampled(
    evaluated: Sequence[Evaluated], ks: Sequence[int], same: Callable[[str, str, str], bool]
) -> Iterator[Figure]:
    rows = [
        [_of_samples(one.samples[row.problem_id], ks, same) for row in one.greedy]
        for one in evaluated
    ]
    names = [one.name for one in evaluated]
    if len(rows) == 2:
        names.append(CHANGE)
        rows.append(
            [
                [ours - theirs for ours, theirs in zip(*pair, strict=True)]
                for pair in zip(*rows, strict=True)
            ]
        )
    estimates = [bootstrap_means(table) for table in rows]
    columns = [(group, str(k)) for group in ("pass@k", "maj@k") for k in ks]
    for place, (group, name) in enumerate(columns):
        for checkpoint, found in zip(names, estimates, strict=True):
            yield _figure(group, name, checkpoint, found[place], len(rows[0]))


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
    known = {problem_id: min(steps, _MANY_STEPS) for problem_id, steps in num_steps.items()}
    for steps in sorted(set(known.values())):
        name = f"{steps} and more" if steps == _MANY_STEPS else str(steps)
        for one in evaluated:
            hits = [row.correct for row in one.greedy if known.get(row.problem_id) == steps]
            if hits:
                group = "accuracy by steps of the rationale"
                yield _figure(group, name, one.name, share(hits), len(hits))


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
            group = f"accuracy by how often {second.name} is right"
            yield _figure(group, name, first.name, share(found), len(found))


_DIFFICULTIES = {"never": 0.0, "up to half": 0.5, "more than half": 1 - 1e-9, "always": 1.0}
"""Classes of problems, with the highest share of right samples of each."""


def _budgets(first: Evaluated, second: Evaluated) -> Iterator[Figure]:
    number = len(first.greedy)
    for one in at_equal_length(first.graded, second.graded):
        group, name = "right within so many tokens", str(one.budget)
        yield _figure(group, name, first.name, one.first, number)
        yield _figure(group, name, second.name, one.second, number)
        yield _figure(group, name, CHANGE, one.change, number)
    for equal in at_equal_accuracy(first.graded, second.graded):
        group, name = "tokens needed for an accuracy", f"{100 * equal.accuracy:.1f} %"
        yield Figure(group, name, first.name, equal.first, "tokens", number)
        yield Figure(group, name, second.name, equal.second, "tokens", number)
        yield _figure(group, name, CHANGE, equal.change, number, "tokens")


def _figure(
    group: str,
    name: str,
    checkpoint: str,
    found: Estimate | Change,
    problems: int,
    unit: Literal["share", "tokens"] = "share",
) -> Figure:
    p_value = found.p_value if isinstance(found, Change) else None
    return Figure(
        group, name, checkpoint, found.value, unit, problems, found.low, found.high, p_value
    )
