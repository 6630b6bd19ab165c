"""Saving and loading training states: exact resumption, without pickles."""

import json
import logging
import random
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from cotpipe.training.fsdp import ShardedTrainer, gathered, shared_out_as
from cotpipe.training.messages import SavedTrainingState
from cotpipe.training.progress import write_line

logger = logging.getLogger(__name__)

_TENSORS = "optimizer.safetensors"
_SETTINGS = "optimizer.json"
_SCALER = "scaler.json"


class ResumableTrainer(ShardedTrainer):
    """Trainer mixin that saves optimizer, learning rate schedule and RNG state without pickles.

    `transformers.Trainer` pickles them, and loading a pickle from a shared store can run arbitrary
    code.
    """

    args: TrainingArguments
    state: TrainerState
    accelerator: Any
    optimizer: Any
    lr_scheduler: Any

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        super()._save(output_dir, state_dict)  # type: ignore[misc]
        Path(str(output_dir or self.args.output_dir), "training_args.bin").unlink()

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save a training state; where that fails (a full disk), training goes on without it."""
        folder = _folder(self.args, self.state)
        has_failed = False
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
        except (OSError, SafetensorError) as error:
            has_failed = True
            _tell_lost(self.state, error)
        self.accelerator.wait_for_everyone()  # each process writes files of its own
        if has_failed:
            shutil.rmtree(folder, ignore_errors=True)
        self.accelerator.wait_for_everyone()  # before the main process reports what is there

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        state = self.optimizer.state_dict()
        named = {
            f"{index}.{name}": tensor
            for index, values in state["state"].items()
            for name, tensor in values.items()
        }
        tensors = gathered(named.items(), self.args.should_save)
        if not self.args.should_save:
            return
        save_file(tensors, Path(output_dir, _TENSORS))
        settings = {"groups": state["param_groups"], "schedule": self.lr_scheduler.state_dict()}
        Path(output_dir, _SETTINGS).write_text(json.dumps(settings), encoding="utf-8")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        settings = json.loads(Path(checkpoint, _SETTINGS).read_text(encoding="utf-8"))
        state: dict[int, dict[str, torch.Tensor]] = {}
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        for key, tensor in sorted(load_file(Path(checkpoint, _TENSORS)).items()):
            index, name = key.split(".", 1)
            own = shared_out_as(weights[int(index)], tensor)
            state.setdefault(int(index), {})[name] = own
        self.optimizer.load_state_dict({"state": state, "param_groups": settings["groups"]})
        self.lr_scheduler.load_state_dict(settings["schedule"])

    def _save_scaler(self, output_dir: str) -> None:
        if self.args.should_save and self.accelerator.scaler is not None:
            state = json.dumps(self.accelerator.scaler.state_dict())
            Path(output_dir, _SCALER).write_text(state, encoding="utf-8")

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is None or self.accelerator.scaler is None:
            return
        kept = Path(checkpoint, _SCALER)
        if kept.exists():  # else the state was saved in another number format
            self.accelerator.scaler.load_state_dict(json.loads(kept.read_text(encoding="utf-8")))

    def _save_rng_state(self, output_dir: str) -> None:
        name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
        state = {
            "python": random.getstate(),
            "numpy": [name, np.asarray(keys).tolist(), position, has_gauss, gauss],
            "torch": torch.get_rng_state().tolist(),
            "cuda": torch.cuda.get_rng_state().tolist() if torch.cuda.is_available() else None,
        }
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        self._rng_file(output_dir).write_text(json.dumps(state), encoding="utf-8")

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None or not self._rng_file(checkpoint).exists():
            return  # saved by fewer processes: this one keeps its own seed
        state = json.loads(self._rng_file(checkpoint).read_text(encoding="utf-8"))
        version, internal, gauss = state["python"]
        random.setstate((version, tuple(internal), gauss))
        np.random.set_state(tuple(state["numpy"]))
        torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))
        if state["cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state(torch.tensor(state["cuda"], dtype=torch.uint8))

    def _rng_file(self, folder: str) -> Path:
        return Path(folder, f"random-{self.args.process_index}.json")


def _folder(args: TrainingArguments, state: TrainerState) -> Path:
    """Where the trainer writes the training state of the current step."""
    return Path(str(args.output_dir), f"checkpoint-{state.global_step}")


def _tell_lost(state: TrainerState, error: Exception) -> None:
    logger.warning(
        "no training state at step %d, the next one is tried again: %s", state.global_step, error
    )


def add_to_training_state(
    args: TrainingArguments, state: TrainerState, write: Callable[[Path], None]
) -> None:
    """Add files to the training state that was just saved; where that fails, it is given up.

    Args:
        args: Of the trainer.
        state: Of the trainer.
        write: Called with the folder of the training state, in the main process, if there is one.
    """
    folder = _folder(args, state)
    if not state.is_world_process_zero or not folder.is_dir():
        return
    try:
        write(folder)
    except OSError as error:
        _tell_lost(state, error)
        shutil.rmtree(folder, ignore_errors=True)


class SaveTrainingState(TrainerCallback):
    """Saves a training state at time intervals, and reports its folder on standard output."""

    def __init__(self, seconds: float, output: TextIO = sys.stdout) -> None:
        self._seconds = seconds
        self._output = output
        self._last = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Called after each optimizer step; all processes follow the main process's decision."""
        # What is resumed at its end would train one step more.
        ends = control.should_training_stop or state.global_step >= state.max_steps
        due = [time.monotonic() - self._last >= self._seconds and not ends]
        if args.world_size > 1:
            broadcast_object_list(due)
        control.should_save = due[0]
        return control

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called after a training state was written."""
        self._last = time.monotonic()
        folder = _folder(args, state)
        if state.is_world_process_zero and folder.is_dir():
            write_line(SavedTrainingState(step=state.global_step, folder=folder), self._output)
