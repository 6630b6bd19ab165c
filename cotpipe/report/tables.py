"""The tables of a page: results, changes, what was kept, the teacher's answers, costs."""

from collections.abc import Sequence
from dataclasses import dataclass

from cotpipe.data.rows import TeacherOutcome
from cotpipe.recipe.stages import title_of
from cotpipe.report import summary
from cotpipe.report.charts import ShareOf
from cotpipe.report.costs import Cost
from cotpipe.report.statistics import Change, Estimate
from cotpipe.report.summary import Comparison, Summary
from cotpipe.report.validations import Choice

_NO_BREAK, _NO_BREAK_HYPHEN = "\u00a0", "\u2011"


@dataclass(frozen=True)
class Table:
    """A table of texts; the first cell of a row names it."""

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def results_table(summaries: Sequence[Summary]) -> Table:
    """Every checkpoint on the held-out problems."""
    return Table(
        f"Greedy answers to {summaries[0].problems} held-out problems; 95 % intervals in brackets",
        ("checkpoint", "accuracy", "mean output tokens", "valid format", "cut off"),
        [
            (
                title_of(one.checkpoint),
                _share(one.accuracy),
                _mean(one.tokens),
                _share(one.valid_format),
                _percent(one.truncated),
            )
            for one in summaries
        ],
    )


def shares_table(shares: Sequence[ShareOf]) -> Table:
    """The accuracy by number of steps, a column per checkpoint."""
    names = dict.fromkeys(one.name for one in shares)
    by_steps: dict[str, list[ShareOf]] = {}
    for one in shares:
        by_steps.setdefault(one.num_steps, []).append(one)
    return Table(
        "Accuracy by the number of steps of the teacher's rationale; problems without a verified one are left out",
        ("steps", "problems", *names),
        [
            (steps, str(cells[0].problems), *(_share(one.accuracy) for one in cells))
            for steps, cells in by_steps.items()
        ],
    )


def changes_table(changes: Sequence[Comparison]) -> Table:
    """What each stage changed."""
    return Table(
        "Mean changes per problem, on the same problems; p-values of McNemar's exact test (accuracy) and of a "
        f"sign-flip test of the mean (tokens), corrected for the {2 * len(changes)} tests here (Holm)",
        ("from, to", "accuracy", "p", "output tokens", "median", "p of tokens", "verdict"),
        [
            (
                f"{title_of(one.before)} to {title_of(one.after)}",
                _share(one.accuracy),
                _p_value(one.accuracy),
                _mean(one.tokens),
                f"{one.median_tokens:+.1f}",
                _p_value(one.tokens),
                f"{title_of(one.after)} {one.verdict}",
            )
            for one in changes
        ],
    )


def choices_table(choices: Sequence[Choice]) -> Table:
    """Which state each validated stage handed on."""
    return Table(
        "The state of each validated stage that was handed on. SFT: the most accurate one; GRPO: the one with the "
        "shortest answers among those no less accurate than the start and at most one standard error less than "
        "the best",
        ("stage", "kept", "problems", "accuracy before", "accuracy", "output tokens", "why"),
        [
            (
                title_of(one.stage),
                f"step {one.kept_step} of {one.last_step}" if one.kept_step else "the start",
                str(one.problems),
                _percent(one.first_accuracy),
                _share(one.accuracy),
                _mean(one.tokens),
                "; ".join(filter(None, (one.why, one.few))),
            )
            for one in choices
        ],
    )


def outcomes_table(outcomes: Sequence[TeacherOutcome], unit: str) -> Table:
    """What became of the teacher's answers; `unit` is what their lengths count."""
    return Table(
        "What became of the teacher's answers, thoughts counted",
        ("outcome", "answers", "share", "mean words", unit),
        [
            (
                one.outcome,
                f"{one.num_answers:,}",
                _percent(one.share),
                f"{one.mean_words:.0f}",
                f"{one.num_tokens:,}",
            )
            for one in outcomes
        ],
    )


def costs_table(costs: Sequence[Cost]) -> Table:
    """What each artifact took to make; columns of what no record tells are left out."""
    columns = {
        "time": [duration(one.seconds) for one in costs],
        "tokens sampled": [_count(one.sampled) for one in costs],
        "tokens trained on": [_count(one.trained) for one in costs],
        "made (UTC)": [one.record.made_at[:16].replace("T", " ") for one in costs],
        "fingerprint": [one.record.fingerprint for one in costs],
    }
    known = {heading: cells for heading, cells in columns.items() if any(cells)}
    steps = [one.record.kind for one in costs]
    return Table(
        "Time of the attempt that was committed; what interrupted attempts took is not recorded",
        ("step", *known),
        list(zip(steps, *known.values(), strict=True)),
    )


def duration(seconds: float) -> str:
    """A duration in the largest units that matter.

    >>> duration(7.31), duration(754), duration(36_150)
    ('7.3 s', '12 min 34 s', '10 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _share(estimate: Estimate | Change) -> str:
    return _together(summary.percent(estimate))


def _mean(estimate: Estimate | Change) -> str:
    return _together(summary.number(estimate))


def _p_value(change: Change) -> str:
    return f"{change.p_value:.2g}".replace("-", _NO_BREAK_HYPHEN)


def _together(text: str) -> str:
    """A figure that breaks into lines before its bounds only."""
    value, bounds, rest = text.partition(" [")
    return value.replace(" ", _NO_BREAK) + bounds + rest.replace(" ", _NO_BREAK)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"
