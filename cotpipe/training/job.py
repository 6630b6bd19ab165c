"""The job file: everything that a training process is told, as JSON."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cotpipe.config import Stage1, Stage2, Stage3


class _Job(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    student: Path  # directory of the checkpoint that training starts from
    examples: Path  # Parquet of `rows.Example`, in training order
    output: Path  # directory for the finished checkpoint
    work: Path  # directory for what only this process needs
    seed: int
    launcher: int = Field(default_factory=os.getpid)  # process without which this one ends
    resume: Path | None = None  # directory of the training checkpoint to go on from
    checkpoint_seconds: float  # time between training checkpoints; 0 saves after each optimizer step


class Stage1Job(_Job):
    """Supervised fine-tuning on reconstruction."""

    kind: Literal["stage1"] = "stage1"
    stage: Stage1


class Stage2Job(_Job):
    """GRPO on masked completion."""

    kind: Literal["stage2"] = "stage2"
    stage: Stage2


class Stage3Job(_Job):
    """GRPO on targeted rewriting."""

    kind: Literal["stage3"] = "stage3"
    stage: Stage3


Job = Annotated[Stage1Job | Stage2Job | Stage3Job, Field(discriminator="kind")]


class Event(BaseModel):
    """One line of a training process's standard output: where it is, and the figures that it logged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    num_steps: int
    figures: dict[str, float]


class Rows(BaseModel):
    """The line that says how many training rows were kept, and how many were too long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows_kept: int
    rows_dropped: int


class Saved(BaseModel):
    """The line that says that a training checkpoint is complete."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    folder: Path


class Refusal(BaseModel):
    """The line of a training process that stops at a mistake of the user's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user_error: str


class OutOfMemory(BaseModel):
    """The line of a training process whose memory, on its GPU or beside it, is too small."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    out_of_memory: str
