"""The rollouts of a stage as rows: written as training goes on, and kept across interruptions."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from cotpipe.data.rows import Rollout, read_rows, write_rows
from cotpipe.training.job import Job
from cotpipe.training.resume import add_to_training_state

_PARTS = "rollouts-*.parquet"


class RecordRollouts(TrainerCallback):
    """Keeps every rollout of a stage, in the main process.

    Rows are written in parts: a full one, and whatever is there when a training state is saved. The
    state has all parts, so that after an interruption each optimizer step's rollouts are there once.
    """

    def __init__(self, job: Job, rows_per_part: int = 10_000) -> None:
        self._work, self._resume = job.work, job.resume
        self._rows_per_part = rows_per_part
        self._waiting: list[Rollout] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Go on from the rollouts of the training state."""
        if self._resume and state.is_world_process_zero:
            for part in _parts_in(self._resume):
                shutil.copyfile(part, self._work / part.name)

    def add(self, rows: Sequence[Rollout]) -> None:
        """Take in the rollouts of an optimizer step, in the main process."""
        self._waiting += rows
        if len(self._waiting) >= self._rows_per_part:
            self._write_part()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put all rollouts so far into the training state."""
        add_to_training_state(args, state, self._copy_parts)

    def _copy_parts(self, folder: Path) -> None:
        self._write_part()
        for part in _parts_in(self._work):
            shutil.copyfile(part, folder / part.name)

    def write(self, path: Path) -> None:
        """Write all rollouts as one Parquet file, in the order of their optimizer steps."""
        self._write_part()
        write_rows(path, Rollout, self._rows())

    def _rows(self) -> Iterator[Rollout]:
        for part in _parts_in(self._work):
            yield from read_rows(part, Rollout)

    def _write_part(self) -> None:
        if self._waiting:
            name = _PARTS.replace("*", f"{len(_parts_in(self._work)):06d}")
            draft = self._work / f"{name}.draft"  # half a part must not count as one
            write_rows(draft, Rollout, self._waiting)
            draft.rename(self._work / name)
            self._waiting = []


def _parts_in(folder: Path) -> list[Path]:
    return sorted(folder.glob(_PARTS))
