"""The report step: from the evaluations of all checkpoints to `report.md`."""

import pyarrow.parquet as pq

from cotpipe.report import CHECKPOINTS, read_evaluations, write_report
from cotpipe.steps.step import Work


def report(work: Work) -> dict[str, int]:
    """Write `report.md`."""
    files = {name: work.input(f"evaluation-{name}", "evaluations.parquet") for name in CHECKPOINTS}
    rows = read_evaluations(files)
    write_report(
        work.output / "report.md", work.recipe, rows, {stage: _steps(work, stage) for stage in CHECKPOINTS[1:]}
    )
    return {"problems": len(rows["base"])}


def _steps(work: Work, stage: str) -> int:
    log = pq.read_table(work.input(stage, "training_log.parquet"), columns=["step"])
    return max(log["step"].to_pylist(), default=0)
