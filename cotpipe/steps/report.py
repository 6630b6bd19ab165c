"""The report step: from the evaluations of all checkpoints to `report.md`."""

import pyarrow.parquet as pq

from cotpipe.report import CHECKPOINTS, read_evaluations, write_report
from cotpipe.rows import TeacherOutcome, read_rows
from cotpipe.steps.step import Work


def report(work: Work) -> dict[str, int]:
    """Write `report.md`."""
    files = {name: work.input(f"evaluation-{name}", "evaluations.parquet") for name in CHECKPOINTS}
    rows = read_evaluations(files)
    optimizer_steps = {stage: _steps(work, stage) for stage in CHECKPOINTS[1:]}
    teacher = list(read_rows(work.input("rationales", "teacher.parquet"), TeacherOutcome))
    write_report(work.output / "report.md", work.recipe, rows, optimizer_steps, teacher)
    return {"problems": len(rows["base"])}


def _steps(work: Work, stage: str) -> int:
    log = pq.read_table(work.input(stage, "training_log.parquet"), columns=["step"])
    return max(log["step"].to_pylist(), default=0)
