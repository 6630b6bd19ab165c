"""The report step: results of every checkpoint as a page, as text, tables and pictures."""

from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from cotpipe.data.rows import Result, TeacherOutcome, read_rows, write_rows
from cotpipe.recipe.model import Recipe
from cotpipe.recipe.stages import Stage
from cotpipe.recipe.trainers import Grpo
from cotpipe.report.costs import costs, lineage
from cotpipe.report.pictures import draw_results, draw_training
from cotpipe.report.run_page import RunResults, write_run_page
from cotpipe.report.summary import Summary, read_evaluations, summarise
from cotpipe.report.training_curves import Training
from cotpipe.report.validations import read_choice
from cotpipe.report.written import write_report
from cotpipe.steps.step import Step, Work


def step(recipe: Recipe) -> Step:
    """The step that reports on all checkpoints of a recipe."""
    evaluations = [f"evaluation-{name}" for name in recipe.checkpoints]
    return Step(
        kind="report",
        version=8,
        inputs=(*evaluations, *recipe.checkpoints[1:], "rationales", "lessons"),
        fields=lambda recipe: recipe.identity() | {"order": list(recipe.starts.items())},
        run=report,
        verb="report",
        shows="report.html",
    )


def report(work: Work) -> dict[str, int]:
    """Write `report.html`; `report.md` with `results.png` and `training.png`; `results.parquet`."""
    run = _gather(work)
    summaries = [summarise(name, run.rows[name]) for name in run.recipe.checkpoints]
    write_rows(work.output / "results.parquet", Result, map(_result, summaries))
    draw_results(work.output / "results.png", summaries)
    draw_training(work.output / "training.png", run.trainings)
    steps = {stage: training.optimizer_steps for stage, training in run.trainings.items()}
    write_report(work.output / "report.md", run.recipe, run.rows, steps, run.outcomes, run.choices)
    write_run_page(work.output / "report.html", run)
    return {"problems": summaries[0].problems}


def _gather(work: Work) -> RunResults:
    recipe = work.recipe
    trainings = {stage.name: _training(work, stage) for stage in recipe.stages}
    choices = [
        read_choice(name, training.validations)
        for name, training in trainings.items()
        if training.validations
    ]
    return RunResults(
        recipe=recipe,
        rows=read_evaluations(
            {
                name: work.input(f"evaluation-{name}", "evaluations.parquet")
                for name in recipe.checkpoints
            }
        ),
        trainings=trainings,
        choices=[choice for choice in choices if choice],
        outcomes=list(read_rows(work.input("rationales", "teacher.parquet"), TeacherOutcome)),
        teacher=_teacher_steps(work.input("lessons", "lessons.parquet"), recipe.evaluation.split),
        costs=costs(work.store, lineage(work.store, work.inputs.values())),
    )


def _training(work: Work, stage: Stage) -> Training:
    return Training(
        log=pq.read_table(work.input(stage.name, "training_log.parquet")).to_pandas(),
        validations=work.input(stage.name, "validations.parquet") if stage.validates else None,
        rollouts=work.input(stage.name, "rollouts.parquet")
        if isinstance(stage.trainer, Grpo)
        else None,
    )


def _teacher_steps(lessons: Path, split: str) -> dict[str, list[str]]:
    """The steps of the teacher's rationale for each problem of a split that has one."""
    query = "select problem_id, teacher_steps from read_parquet(?) where split = ? and len(teacher_steps) > 0"
    with duckdb.connect() as connection:
        return dict(connection.execute(query, [str(lessons), split]).fetchall())


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
