"""Progress reports of a training process: JSON events on standard output."""

import logging
import math
import sys
from typing import Any, TextIO

from pydantic import BaseModel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from cotpipe.errors import UserError
from cotpipe.recipe.stages import Stage
from cotpipe.training.messages import Event

logger = logging.getLogger(__name__)

_MOST_SKIPPED = 24
"""Optimizer steps in a row that loss scaling may skip: it then has fallen from 65536 to below 1."""

_NAMES = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "gradient_norm",
    "entropy": "entropy",
    "kl": "kl",
    "reward": "reward",
    "reward_std": "reward_deviation",
    "frac_reward_zero_std": "groups_without_variance",
    "completions/mean_length": "completion_tokens",
    "completions/clipped_ratio": "truncated",
    "mean_token_accuracy": "token_accuracy",
    "correct": "correct",
    "valid_format": "valid_format",
    "replaced": "replaced_prompts",
    "bare": "bare_questions",
    "sampled_tokens": "sampled_tokens",
    "trained_tokens": "trained_tokens",
}
"""The reported metrics: TRL's name to ours."""


class ReportProgress(TrainerCallback):
    """Writes an `Event` per logged optimizer step, from the main process only."""

    def __init__(self, stage: Stage, output: TextIO = sys.stdout) -> None:
        self.stage = stage
        self.output = output
        self._skipped = 0  # optimizer steps in a row

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Replay the history logged before a resume, so that the log is complete."""
        for logs in state.log_history:
            self._write(args, state, logs, int(logs["step"]))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Called by the trainer with the metrics of an optimizer step, before a state is saved.

        Raises `UserError` if one is not finite: from there on, training only spoils the weights. In
        float16 a gradient may be, while loss scaling skips the step and lowers the scale.
        """
        self._write(args, state, logs or {}, state.global_step)

    def _write(
        self, args: TrainingArguments, state: TrainerState, logs: dict[str, Any], step: int
    ) -> None:
        figures = {
            _NAMES[name]: float(value)
            for name, value in logs.items()
            if name in _NAMES and value is not None  # None: nothing was measured in this step
        }
        if args.fp16 and "gradient_norm" in figures:
            self._count_skipped(figures, step)
        for name, value in figures.items():
            if not math.isfinite(value):
                raise UserError(self._diverged(args, step, name, value))
        if figures and state.is_world_process_zero and "train_runtime" not in logs:
            write_line(Event(step=step, num_steps=state.max_steps, figures=figures), self.output)

    def _count_skipped(self, figures: dict[str, float], step: int) -> None:
        """Take out a gradient that overflowed float16, unless it always does."""
        if math.isfinite(figures["gradient_norm"]):
            self._skipped = 0
            return
        self._skipped += 1
        if self._skipped <= _MOST_SKIPPED:
            del figures["gradient_norm"]
            logger.warning("optimizer step %d is skipped: its gradient overflows float16", step)

    def _diverged(self, args: TrainingArguments, step: int, name: str, value: float) -> str:
        wider = ", compute in more than float16 (COTPIPE_PRECISION=float32)" if args.fp16 else ""
        stage, rate = self.stage.name, self.stage.trainer.learning_rate
        return (
            f"{stage} diverged: {name} is {value} at optimizer step {step}; lower "
            f"{stage}.trainer.learning_rate (now {rate:g}){wider} or raise {stage}.trainer.warmup_steps; "
            "if it is so at step 1, the checkpoint that the stage starts from is damaged"
        )


def write_line(message: BaseModel, output: TextIO = sys.stdout) -> None:
    """Write a message as a line of JSON and flush it."""
    output.write(message.model_dump_json() + "\n")
    output.flush()
