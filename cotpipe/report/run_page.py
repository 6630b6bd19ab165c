"""The page of a run: what it reached, how its training went, what it cost, and where each figure is from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cotpipe.data.rows import TeacherOutcome
from cotpipe.recipe.model import Recipe
from cotpipe.recipe.stages import title_of
from cotpipe.report import tables
from cotpipe.report.chart_rows import length_bins, points, shares_by_steps
from cotpipe.report.charts import accuracy_by_steps, accuracy_by_tokens, lengths
from cotpipe.report.costs import Cost
from cotpipe.report.drawing import svg
from cotpipe.report.flips import flips
from cotpipe.report.page import write_page
from cotpipe.report.rewarded import rewarded
from cotpipe.report.summary import Comparison, comparisons, number, percent, summarise
from cotpipe.report.training_curves import Training, training_curves
from cotpipe.report.validations import Choice

if TYPE_CHECKING:
    import pandas as pd

_SECTIONS = {
    "results": "Results",
    "changes": "Changes",
    "training": "Training",
    "teacher": "Teacher",
    "answers": "Answers",
    "cost": "Cost",
    "origin": "Recipe",
}


@dataclass(frozen=True)
class RunResults:
    """Everything that the page of a run shows."""

    recipe: Recipe
    rows: "Mapping[str, pd.DataFrame]"  # evaluation rows, by checkpoint
    trainings: Mapping[str, Training]  # by stage
    choices: Sequence[Choice]
    outcomes: Sequence[TeacherOutcome]
    teacher: Mapping[str, Sequence[str]]  # the steps of the rationale, by problem id
    costs: Sequence[Cost]  # of all artifacts, each after its inputs


def write_run_page(path: Path, run: RunResults) -> None:
    """Write the page of a run as one HTML file."""
    recipe, rows = run.recipe, run.rows
    summaries = [summarise(name, rows[name]) for name in recipe.checkpoints]
    changes = comparisons(recipe.starts, rows)
    shares = shares_by_steps(rows, run.teacher)
    write_page(
        path,
        "run",
        sections=_SECTIONS,
        recipe=recipe,
        ends=(summaries[0], summaries[-1]),
        change=changes[0],
        verdict=verdict(changes[0]),
        by_tokens=svg(accuracy_by_tokens(points(summaries), joined=True)),
        by_steps=svg(accuracy_by_steps(shares)) if shares else None,
        lengths=svg(lengths(length_bins(rows))),
        training={title: svg(chart) for title, chart in training_curves(run.trainings).items()},
        rewarded=rewarded(run.trainings),
        untrained=[title_of(name) for name, one in run.trainings.items() if not one.optimizer_steps],
        flips=flips(rows, run.teacher),
        checkpoints=[title_of(name) for name in recipe.checkpoints],
        outcomes=run.outcomes,
        tables={
            "results": tables.results_table(summaries),
            "shares": tables.shares_table(shares),
            "changes": tables.changes_table(changes),
            "choices": tables.choices_table(run.choices),
            "outcomes": tables.outcomes_table(run.outcomes, "tokens" if recipe.teacher.model else "words"),
            "costs": tables.costs_table(run.costs),
        },
        seconds=sum(one.seconds for one in run.costs),
        sources=_sources(run),
        versions=run.costs[-1].record.versions if run.costs else {},
        recipe_text=_yaml(recipe.model_dump(mode="json")),
        percent=percent,
        number=number,
        duration=tables.duration,
    )  # fmt: skip


def verdict(change: Comparison) -> str:
    """What a comparison shows, in a sentence."""
    text = f"{title_of(change.after)} {change.verdict}, against {title_of(change.before)}."
    return text[0].upper() + text[1:]


def _sources(run: RunResults) -> dict[str, list[str]]:
    """The artifacts that the figures of each section are from."""
    names = {one.record.kind: str(one.record.reference) for one in run.costs}
    kinds = {
        "results": [*(f"evaluation-{name}" for name in run.recipe.checkpoints), "lessons"],
        "training": list(run.trainings),
        "teacher": ["rationales"],
    }
    return {
        section: [names[kind] for kind in chosen if kind in names]
        for section, chosen in kinds.items()
    }


def _yaml(content: Any) -> str:
    import yaml

    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
