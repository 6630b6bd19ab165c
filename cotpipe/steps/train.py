"""The three training stages: from lessons to examples, from examples to a checkpoint."""

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from cotpipe.errors import RunError
from cotpipe.examples import stage1_examples, stage2_examples, stage3_examples
from cotpipe.randomness import named_seed
from cotpipe.rows import Example, Failure, Lesson, Logged, read_table, write_rows
from cotpipe.steps.step import Work
from cotpipe.training.job import Event, Job, Rows
from cotpipe.training.launch import train

logger = logging.getLogger(__name__)

Stage = Literal["stage1", "stage2", "stage3"]


def write_stage1_examples(work: Work) -> dict[str, int]:
    """`examples.parquet` for stage 1."""
    lessons = _read_taught(work, pc.field("split") == "stage1")
    return _write(work, stage1_examples(lessons, work.recipe.stage1, work.recipe.seed))


def write_stage2_examples(work: Work) -> dict[str, int]:
    """`examples.parquet` for stage 2."""
    lessons = _read_taught(work, pc.field("split") == "stage2")
    return _write(work, stage2_examples(lessons, work.recipe.stage2, work.recipe.seed))


def write_stage3_examples(work: Work) -> dict[str, int]:
    """`examples.parquet` for stage 3: the mined failures alone.

    Raises `RunError` where a held-out problem is among them.
    """
    failed = read_table(work.input("failures", "failures.parquet"), Failure)["problem_id"]
    lessons = _read_taught(work, pc.field("problem_id").isin(failed))
    if held_out := lessons.filter(pc.field("split") != "mining")["problem_id"].to_pylist():
        raise RunError(
            f"mined failures are no problems of the mining split: {', '.join(held_out[:5])}; a student must never "
            "train on held-out problems, so nothing is made of them; run again with --refresh failures"
        )
    return _write(work, stage3_examples(lessons, work.recipe.stage3, work.recipe.seed))


def train_stage(work: Work, stage: Stage, start: str) -> dict[str, int]:
    """Train the checkpoint of the input `start` on the stage's examples: `model/` and `training_log.parquet`.

    With fewer examples than one optimizer step takes, the checkpoint is passed on as it is and the count of
    optimizer steps is 0: a student without persistent failures has nothing to learn in stage 3.
    """
    examples = work.input(f"{stage}-examples", "examples.parquet")
    section = getattr(work.recipe, stage)
    per_step = section.batch_size if stage == "stage1" else section.prompts_per_step
    num_examples = pq.read_metadata(examples).num_rows
    if num_examples < per_step:
        logger.warning(
            "%s: %d examples are less than one optimizer step (%d); nothing is trained", stage, num_examples, per_step
        )
        shutil.copytree(work.input(start, "model"), work.output / "model")
        return {"optimizer_steps": 0} | _write_log(work.output, [])
    rows, events, micro_batch = _train_in_memory(work, stage, start)
    counts = {"optimizer_steps": events[-1].num_steps, "micro_batch": micro_batch}
    return counts | rows.model_dump() | _write_log(work.output, events)


def _train_in_memory(work: Work, stage: Stage, start: str) -> tuple[Rows, list[Event], int]:
    """Train with the recipe's micro-batch, or with half of it where memory runs out, and half of that.

    The rows of an optimizer step stay the same; its sums are rounded otherwise, as with any other micro-batch.
    """
    micro_batch = getattr(work.recipe, stage).micro_batch
    while True:
        try:
            return *_train(work, stage, start, micro_batch), micro_batch
        except MemoryError as error:
            if micro_batch % 2:
                raise RunError(
                    f"{stage}: memory runs out with {micro_batch} rows per forward pass ({error}); turn on "
                    f"{stage}.gradient_checkpointing, train adapters ({stage}.lora), or lower its lengths"
                ) from error
            micro_batch //= 2
            logger.warning("%s: memory runs out (%s); it goes on with micro_batch %d", stage, error, micro_batch)


def _train(work: Work, stage: Stage, start: str, micro_batch: int) -> tuple[Rows, list[Event]]:
    scratch = work.output / ".scratch"  # on the store's disk: checkpoints are moved, not copied
    resume = scratch / "resume"
    job: Job = TypeAdapter(Job).validate_python(
        {
            "kind": stage,
            "student": work.input(start, "model"),
            "examples": work.input(f"{stage}-examples", "examples.parquet"),
            "output": work.output / "model",
            "work": scratch,
            "seed": named_seed(work.recipe.seed, stage) % 2**31,
            "resume": resume if work.checkpoints.fetch_latest(resume) else None,
            "checkpoint_seconds": work.settings.checkpoint_seconds,
            "stage": getattr(work.recipe, stage).model_copy(update={"micro_batch": micro_batch}),
        }
    )
    try:
        return train(
            job,
            work.settings.num_processes,
            on_event=lambda event: work.report(event.step, event.num_steps, event.figures),
            on_saved=lambda saved: work.checkpoints.save(saved.step, saved.folder),
            on_line=work.report.log,
        )
    finally:
        shutil.rmtree(scratch)


def _read_taught(work: Work, chosen: pc.Expression) -> pa.Table:
    """The chosen lessons that have a rationale; filtered while they are read, for a copy of a million is dear."""
    has_steps = pc.list_value_length(pc.field("teacher_steps")) > 0
    return read_table(work.input("lessons", "lessons.parquet"), Lesson, chosen & has_steps)


def _write(work: Work, examples: Iterable[Example]) -> dict[str, int]:
    return {"kept": write_rows(work.output / "examples.parquet", Example, examples)}


def _write_log(folder: Path, events: list[Event]) -> dict[str, int]:
    """The figures of a training process in long form: step, name, value."""
    rows = [Logged(event.step, name, value) for event in events for name, value in event.figures.items()]
    return {"logged_figures": write_rows(folder / "training_log.parquet", Logged, rows)}
