"""The Markdown report: tables, the effect of each stage, and answers before and after."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cotpipe.data.rows import TeacherOutcome
from cotpipe.recipe.examples import Masks
from cotpipe.recipe.model import Recipe
from cotpipe.report.markdown_page import write_markdown
from cotpipe.report.summary import comparisons, summarise
from cotpipe.report.validations import Choice

if TYPE_CHECKING:
    import pandas as pd

_NUM_EXAMPLES = 5


def write_report(
    path: Path,
    recipe: Recipe,
    rows: "Mapping[str, pd.DataFrame]",
    optimizer_steps: Mapping[str, int],
    teacher: Sequence[TeacherOutcome],
    choices: Sequence[Choice] = (),
) -> None:
    """Write the Markdown report: tables, comparisons, key settings, examples.

    Args:
        path: The file to write.
        recipe: The recipe of the run.
        rows: The evaluation rows of every checkpoint.
        optimizer_steps: Optimizer steps of each stage.
        teacher: Outcomes of the teacher's answers.
        choices: What the stages kept that were validated while they trained.
    """
    write_markdown(
        path,
        "report",
        describe_masks=describe_masks,
        recipe=recipe,
        summaries=[summarise(name, rows[name]) for name in recipe.checkpoints],
        comparisons=comparisons(recipe.starts, rows),
        examples=_examples(rows["base"], rows[recipe.checkpoints[-1]]),
        optimizer_steps=optimizer_steps,
        teacher=teacher,
        choices=choices,
    )


def describe_masks(masks: Masks) -> str:
    """A mask section in words."""
    match masks.amount:
        case "one":
            amount = "one step"
        case "half":
            amount = "max(3, half of the steps), one stays"
        case "share":
            amount = (
                f"a share that goes from {masks.first_share:g} to {masks.last_share:g} of the steps"
            )
    return f"{masks.kind} masks, {amount}, in {100 * masks.probability:g} % of the rows"


def _examples(before: "pd.DataFrame", after: "pd.DataFrame") -> list[dict[Hashable, Any]]:
    """The first problems by id, so not selected by result."""
    pairs = before.merge(
        after, on=["problem_id", "question", "answer"], suffixes=("_before", "_after")
    )
    return pairs.head(_NUM_EXAMPLES).to_dict("records")
