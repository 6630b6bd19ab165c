"""The result of a comparison of arms: what is shown of it in the terminal, in Markdown and as HTML."""

from collections.abc import Sequence
from dataclasses import dataclass

from cotpipe.report.arms import ArmScore, Contrast, Effect
from cotpipe.report.markdown import escape
from cotpipe.report.summary import number, percent

HEADINGS = (
    "arm", "seeds", "accuracy", "tokens", "against the baseline", "tokens trained on", "tokens sampled", "minutes",
)  # fmt: skip


@dataclass(frozen=True)
class Spent:
    """What the steps of a run cost when they were made, whether they were reused or not."""

    trained_tokens: int
    sampled_tokens: int
    seconds: float

    @property
    def tokens(self) -> int:
        """Tokens trained on and tokens sampled, together."""
        return self.trained_tokens + self.sampled_tokens


@dataclass(frozen=True)
class CheckpointScore:
    """What one checkpoint of an arm reaches, over all the arm's seeds."""

    arm: str
    checkpoint: str
    score: ArmScore


@dataclass(frozen=True)
class Unfinished:
    """An arm with a seed that has no result."""

    arm: str
    seed: int
    why: str  # one line; empty if it has not been run


@dataclass(frozen=True)
class Compared:
    """A comparison as far as it has come."""

    name: str
    baseline: str
    scores: dict[str, ArmScore]  # of the last checkpoints of the arms with a completed run
    checkpoints: list[CheckpointScore]  # of all their checkpoints but the student itself
    costs: dict[str, Spent]  # mean over the seeds, of the same arms
    contrasts: list[Contrast]  # of the arms that share a seed with the baseline
    unfinished: list[Unfinished]


def rows_of(compared: Compared) -> list[tuple[str, ...]]:
    """The result as rows of text under `HEADINGS`, the baseline first."""
    effects = {one.arm: one for one in compared.contrasts}
    names = sorted(compared.scores, key=lambda name: name != compared.baseline)
    rows: list[tuple[str, ...]] = []
    for name in names:
        score, cost = compared.scores[name], compared.costs[name]
        rows.append(
            (
                f"{name} (baseline)" if name == compared.baseline else name,
                str(score.num_seeds),
                percent(score.accuracy),
                number(score.tokens),
                _difference(effects[name]) if name in effects else "",
                f"{cost.trained_tokens:,}",
                f"{cost.sampled_tokens:,}",
                f"{cost.seconds / 60:.1f}",
            )
        )
    return rows


def verdicts(compared: Compared) -> list[str]:
    """One sentence for each arm that was compared."""
    if compared.baseline not in compared.scores:
        return [f"{compared.baseline}, the baseline, has no completed run: nothing is compared"]
    return [f"{one.arm} against {one.baseline}: {one.verdict}" for one in compared.contrasts]


def without_result(compared: Compared) -> list[str]:
    """What has failed or was not run: one sentence for each run that did not complete."""
    told = [f"{one.arm}, seed {one.seed}: {one.why}" for one in compared.unfinished if one.why]
    missing: dict[str, list[str]] = {}
    for one in compared.unfinished:
        if not one.why:
            missing.setdefault(one.arm, []).append(str(one.seed))
    told += [f"{arm}: not run yet with seed {', '.join(seeds)}" for arm, seeds in missing.items()]
    return told


def method(compared: Compared) -> str:
    """How the intervals and verdicts were made, in two sentences."""
    count = sum(one.num_seeds > 1 for one in compared.contrasts)
    told = (
        "Greedy answers to held-out questions, alone; 95 % intervals over seeds and problems (two-way "
        "clusters), differences paired by seed and problem."
    )
    if not count:
        return told
    arms = "one arm" if count == 1 else f"{count} arms"
    return f"{told} Beyond noise: p below 5 % after Holm's correction for {arms}."


def as_markdown(compared: Compared) -> str:
    """The result as a section of Markdown."""
    lines = [f"# Comparison {escape(compared.name)}", "", *_markdown_table(rows_of(compared)), ""]
    lines += [f"- {escape(one)}" for one in (*verdicts(compared), *without_result(compared))]
    return "\n".join([*lines, "", method(compared), ""])


def _markdown_table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    shown = [[escape(cell) for cell in row] for row in (HEADINGS, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in shown]
    return [lines[0], f"|{' --- |' * len(HEADINGS)}", *lines[1:]]


def _difference(contrast: Contrast) -> str:
    seeds = f"; {contrast.num_seeds} common seed{'' if contrast.num_seeds == 1 else 's'}"
    return f"{_signed(contrast.accuracy, 'points')}, {_signed(contrast.tokens, '% tokens')}{seeds}"


def _signed(effect: Effect, unit: str) -> str:
    value, low, high = (100 * one for one in (effect.value, effect.low, effect.high))
    return f"{value:+.1f} {unit} [{low:+.1f}, {high:+.1f}]"
