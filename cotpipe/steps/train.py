"""The three training stages: from lessons to examples, from examples to a checkpoint."""

import logging
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from cotpipe.examples import stage1_examples, stage2_examples, stage3_examples
from cotpipe.randomness import named_seed
from cotpipe.rows import Example, Failure, read_rows, write_rows
from cotpipe.steps.prepare import read_lessons
from cotpipe.steps.step import Work
from cotpipe.training.job import Event, Job
from cotpipe.training.launch import train

logger = logging.getLogger(__name__)

Stage = Literal["stage1", "stage2", "stage3"]


def write_stage1_examples(work: Work) -> dict[str, int]:
    """`examples.parquet` for stage 1."""
    lessons = list(read_lessons(work.inputs["lessons"], "stage1"))
    return _write(work, stage1_examples(lessons, work.recipe.stage1, work.recipe.seed))


def write_stage2_examples(work: Work) -> dict[str, int]:
    """`examples.parquet` for stage 2."""
    lessons = list(read_lessons(work.inputs["lessons"], "stage2"))
    return _write(work, stage2_examples(lessons, work.recipe.stage2, work.recipe.seed))


def write_stage3_examples(work: Work) -> dict[str, int]:
    """`examples.parquet` for stage 3: the mined failures alone."""
    failed = {row.problem_id for row in read_rows(work.inputs["failures"] / "failures.parquet", Failure)}
    lessons = [lesson for lesson in read_lessons(work.inputs["lessons"], "mining") if lesson.problem_id in failed]
    return _write(work, stage3_examples(lessons, work.recipe.stage3, work.recipe.seed))


def train_stage(work: Work, stage: Stage, start: str) -> dict[str, int]:
    """Train the checkpoint of the input `start` on the stage's examples: `model/` and `training_log.parquet`.

    With fewer examples than one optimizer step takes, the checkpoint is passed on as it is and the count of
    optimizer steps is 0: a student without persistent failures has nothing to learn in stage 3.
    """
    examples = work.inputs[f"{stage}-examples"] / "examples.parquet"
    section = getattr(work.recipe, stage)
    per_step = section.batch_size if stage == "stage1" else section.prompts_per_step
    num_examples = pq.read_metadata(examples).num_rows
    if num_examples < per_step:
        logger.warning(
            "%s: %d examples are less than one optimizer step (%d); nothing is trained", stage, num_examples, per_step
        )
        shutil.copytree(work.inputs[start] / "model", work.output / "model")
        return {"optimizer_steps": 0} | _write_log(work.output, [])
    with tempfile.TemporaryDirectory(prefix="cotpipe-") as scratch:
        job: Job = TypeAdapter(Job).validate_python(
            {
                "kind": stage,
                "student": work.inputs[start] / "model",
                "examples": examples,
                "output": work.output / "model",
                "work": Path(scratch),
                "seed": named_seed(work.recipe.seed, stage) % 2**31,
                "stage": section,
            }
        )
        rows, events = train(
            job, work.settings.num_processes, lambda event: work.report(event.step, event.num_steps, event.figures)
        )
    return {"optimizer_steps": events[-1].num_steps} | rows.model_dump() | _write_log(work.output, events)


def _write(work: Work, examples: Iterable[Example]) -> dict[str, int]:
    return {"kept": write_rows(work.output / "examples.parquet", Example, examples)}


def _write_log(folder: Path, events: list[Event]) -> dict[str, int]:
    """The figures of a training process in long form: step, name, value."""
    rows = [(event.step, name, value) for event in events for name, value in event.figures.items()]
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    schema = pa.schema([("step", pa.int64()), ("name", pa.string()), ("value", pa.float64())])
    pq.write_table(pa.table([list(column) for column in columns], schema=schema), folder / "training_log.parquet")
    return {"logged_figures": len(rows)}
