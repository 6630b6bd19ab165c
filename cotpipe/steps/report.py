"""The report step: results of every checkpoint as text, tables and plots."""

from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from cotpipe.data.rows import Result, TeacherOutcome, read_rows, write_rows
from cotpipe.recipe.model import Recipe
from cotpipe.report.pictures import draw_results, draw_training
from cotpipe.report.summary import Summary, read_evaluations, summarise
from cotpipe.report.validations import read_choice
from cotpipe.report.written import write_report
from cotpipe.steps.step import Step, Work

if TYPE_CHECKING:
    import pandas as pd


def step(recipe: Recipe) -> Step:
    """The step that reports on all checkpoints of a recipe."""
    evaluations = [f"evaluation-{name}" for name in recipe.checkpoints]
    return Step(
        kind="report",
        version=5,
        inputs=(*evaluations, *recipe.checkpoints[1:], "rationales"),
        fields=lambda recipe: recipe.identity() | {"order": list(recipe.starts.items())},
        run=report,
        verb="report",
        shows="report.md",
    )


def report(work: Work) -> dict[str, int]:
    """Write `report.md`, `results.png`, `training.png` and `results.parquet`."""
    recipe = work.recipe
    rows = read_evaluations(
        {
            name: work.input(f"evaluation-{name}", "evaluations.parquet")
            for name in recipe.checkpoints
        }
    )
    logs = {stage.name: _read_log(work, stage.name) for stage in recipe.stages}
    optimizer_steps = {
        stage: int(log["step"].max()) if len(log) else 0 for stage, log in logs.items()
    }
    teacher = list(read_rows(work.input("rationales", "teacher.parquet"), TeacherOutcome))
    results = [_result(summarise(name, rows[name])) for name in recipe.checkpoints]
    write_rows(work.output / "results.parquet", Result, results)
    draw_results(work.output / "results.png", results)
    draw_training(work.output / "training.png", logs, recipe.stages)
    choices = [
        choice
        for stage in recipe.stages
        if stage.validates
        and (choice := read_choice(stage.name, work.input(stage.name, "validations.parquet")))
    ]
    write_report(work.output / "report.md", recipe, rows, optimizer_steps, teacher, choices)
    return {"problems": len(rows["base"])}


def _read_log(work: Work, stage: str) -> "pd.DataFrame":
    log: pd.DataFrame = pq.read_table(work.input(stage, "training_log.parquet")).to_pandas()
    return log


def _result(summary: Summary) -> Result:
    accuracy, tokens = summary.accuracy, summary.tokens
    return Result(
        checkpoint=summary.checkpoint,
        problems=summary.problems,
        accuracy=accuracy.value,
        accuracy_low=accuracy.low,
        accuracy_high=accuracy.high,
        tokens=tokens.value,
        tokens_low=tokens.low,
        tokens_high=tokens.high,
        valid_format=summary.valid_format.value,
        truncated=summary.truncated,
    )
