"""The result of a run: one summary per checkpoint, what each stage changed, and the report in Markdown."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import jinja2
import pandas as pd

from cotpipe.config import Masks, Recipe
from cotpipe.rows import TeacherOutcome
from cotpipe.statistics import Change, Estimate, change_of_mean, change_of_share, mean, share

CHECKPOINTS = ("base", "stage1", "stage2", "stage3")
TITLES = {"base": "base", "stage1": "stage 1", "stage2": "stage 2", "stage3": "stage 3"}
_NUM_EXAMPLES = 5


@dataclass(frozen=True)
class Summary:
    """One line of the result table."""

    checkpoint: str
    problems: int
    accuracy: Estimate  # share in [0, 1]
    tokens: Estimate  # mean output length (the student's tokens)
    valid_format: Estimate  # share in [0, 1]
    truncated: float  # share in [0, 1]


@dataclass(frozen=True)
class Comparison:
    """What changed from one checkpoint to another on the same problems."""

    before: str
    after: str
    accuracy: Change
    tokens: Change

    @property
    def verdict(self) -> str:
        """In words, whether the later checkpoint is more accurate or shorter beyond noise."""
        accuracy = _verdict(self.accuracy, "adds accuracy", "loses accuracy")
        tokens = _verdict(self.tokens, "writes more tokens", "saves tokens")
        found = [text for text in (accuracy, tokens) if text]
        return " and ".join(found) + " beyond noise" if found else "changes neither accuracy nor length beyond noise"


def read_evaluations(files: Mapping[str, Path]) -> dict[str, pd.DataFrame]:
    """The evaluation rows of each checkpoint, in the order of the problems' ids."""
    with duckdb.connect() as connection:
        query = "select * from read_parquet(?) order by problem_id"
        return {name: connection.execute(query, [str(path)]).df() for name, path in files.items()}


def summarise(name: str, rows: pd.DataFrame) -> Summary:
    """The figures of one checkpoint; raises `AssertionError` for no rows."""
    assert len(rows), f"{name} was evaluated on no problem"
    return Summary(
        checkpoint=name,
        problems=len(rows),
        accuracy=share(rows["correct"].tolist()),
        tokens=mean(rows["num_tokens"].tolist()),
        valid_format=share(rows["valid_format"].tolist()),
        truncated=float(rows["truncated"].mean()),
    )


def compare(before: str, after: str, rows: Mapping[str, pd.DataFrame]) -> Comparison:
    """Compare two checkpoints problem by problem."""
    first, second = rows[before], rows[after]
    assert first["problem_id"].tolist() == second["problem_id"].tolist(), "evaluated on different problems"
    return Comparison(
        before,
        after,
        accuracy=change_of_share(first["correct"].tolist(), second["correct"].tolist()),
        tokens=change_of_mean(first["num_tokens"].tolist(), second["num_tokens"].tolist()),
    )


def comparisons(rows: Mapping[str, pd.DataFrame]) -> list[Comparison]:
    """The comparisons that a report makes: over all, then what each stage added, then both GRPO stages together."""
    pairs = [("base", "stage3"), ("base", "stage1"), ("stage1", "stage2"), ("stage2", "stage3"), ("stage1", "stage3")]
    return [compare(before, after, rows) for before, after in pairs]


def write_report(
    path: Path,
    recipe: Recipe,
    rows: Mapping[str, pd.DataFrame],
    optimizer_steps: Mapping[str, int],
    teacher: Sequence[TeacherOutcome],
) -> None:
    """Write `report.md`: the tables, the comparisons, the settings that decided, and rationales before and after."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cotpipe", "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        autoescape=False,  # noqa: S701 - Markdown, not HTML
    )
    environment.filters |= {"percent": percent, "number": number, "quote": _quote}
    text = environment.get_template("report.md.jinja").render(
        recipe=recipe,
        titles=TITLES,
        summaries=[summarise(name, rows[name]) for name in CHECKPOINTS],
        comparisons=comparisons(rows),
        examples=_examples(rows["base"], rows["stage3"]),
        masks={"stage 1": describe_masks(recipe.stage1.masks), "stage 2": describe_masks(recipe.stage2.masks)},
        optimizer_steps=optimizer_steps,
        teacher=teacher,
    )
    path.write_text(text, encoding="utf-8")


def percent(estimate: Estimate | Change) -> str:
    """A share as `67.5 % [60.7, 73.6]`; a change in points, with its sign."""
    sign = "+" if isinstance(estimate, Change) else ""
    unit = " points" if isinstance(estimate, Change) else " %"
    return f"{100 * estimate.value:{sign}.1f}{unit} [{100 * estimate.low:{sign}.1f}, {100 * estimate.high:{sign}.1f}]"


def number(estimate: Estimate | Change) -> str:
    """A mean as `96.1 [93.0, 99.2]`; a change with its sign."""
    sign = "+" if isinstance(estimate, Change) else ""
    return f"{estimate.value:{sign}.1f} [{estimate.low:{sign}.1f}, {estimate.high:{sign}.1f}]"


def describe_masks(masks: Masks) -> str:
    """A mask section in words."""
    match masks.amount:
        case "one":
            amount = "one step"
        case "half":
            amount = "max(3, half of the steps), one stays"
        case "share":
            amount = f"a share that goes from {masks.first_share:g} to {masks.last_share:g} of the steps"
    return f"{masks.kind} masks, {amount}, in {100 * masks.probability:g} % of the rows"


def _verdict(change: Change, more: str, less: str) -> str:
    if not change.beyond_noise:
        return ""
    return more if change.value > 0 else less


def _examples(before: pd.DataFrame, after: pd.DataFrame) -> list[dict[Hashable, Any]]:
    """The first problems by id: chosen by no result."""
    pairs = before.merge(after, on=["problem_id", "question", "answer"], suffixes=("_before", "_after"))
    return pairs.head(_NUM_EXAMPLES).to_dict("records")


def _quote(text: str) -> str:
    return "\n".join(f"> {line}" if line else ">" for line in text.strip().splitlines()) or "> (nothing)"
