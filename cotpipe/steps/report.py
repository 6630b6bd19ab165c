"""The report step: from the evaluations of all checkpoints to `report.md`, its pictures and a table of the results."""

import pandas as pd
import pyarrow.parquet as pq

from cotpipe.pictures import draw_results, draw_training
from cotpipe.report import CHECKPOINTS, TITLES, Summary, read_evaluations, summarise, write_report
from cotpipe.rows import Result, TeacherOutcome, read_rows, write_rows
from cotpipe.steps.step import Work


def report(work: Work) -> dict[str, int]:
    """Write `report.md`, `results.png`, `training.png` and `results.parquet`."""
    files = {name: work.input(f"evaluation-{name}", "evaluations.parquet") for name in CHECKPOINTS}
    rows = read_evaluations(files)
    logs = {stage: _read_log(work, stage) for stage in CHECKPOINTS[1:]}
    optimizer_steps = {stage: int(log["step"].max()) if len(log) else 0 for stage, log in logs.items()}
    teacher = list(read_rows(work.input("rationales", "teacher.parquet"), TeacherOutcome))
    results = [_result(summarise(name, rows[name])) for name in CHECKPOINTS]
    write_rows(work.output / "results.parquet", Result, results)
    draw_results(work.output / "results.png", results, TITLES)
    draw_training(work.output / "training.png", logs, TITLES)
    write_report(work.output / "report.md", work.recipe, rows, optimizer_steps, teacher)
    return {"problems": len(rows["base"])}


def _read_log(work: Work, stage: str) -> pd.DataFrame:
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
