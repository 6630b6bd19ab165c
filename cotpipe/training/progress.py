"""Progress reports of a training process: JSON events on standard output."""

import math
import sys
from typing import Any, TextIO

from pydantic import BaseModel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from cotpipe.errors import UserError
from cotpipe.recipe.stages import Stage
from cotpipe.training.messages import Event

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

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Replay the history logged before a resume, so that the log is complete."""
        for logs in state.log_history:
            self._write(state, logs, int(logs["step"]))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Called by the trainer with the metrics of an optimizer step, before a state is saved.

        Raises `UserError` if one is not finite: from there on, training only spoils the weights.
        """
        self._write(state, logs or {}, state.global_step)

    def _write(self, state: TrainerState, logs: dict[str, Any], step: int) -> None:
        figures = {
            _NAMES[name]: float(value)
            for name, value in logs.items()
            if name in _NAMES and value is not None  # None: nothing was measured in this step
        }
        for name, value in figures.items():
            if not math.isfinite(value):
                raise UserError(self._diverged(step, name, value))
        if figures and state.is_world_process_zero and "train_runtime" not in logs:
            write_line(Event(step=step, num_steps=state.max_steps, figures=figures), self.output)

    def _diverged(self, step: int, name: str, value: float) -> str:
        stage, rate = self.stage.name, self.stage.trainer.learning_rate
        return (
            f"{stage} diverged: {name} is {value} at optimizer step {step}; lower "
            f"{stage}.trainer.learning_rate (now {rate:g}) or raise {stage}.trainer.warmup_steps; "
            "if it is so at step 1, the checkpoint that the stage starts from is damaged"
        )


def write_line(message: BaseModel, output: TextIO = sys.stdout) -> None:
    """Write a message as a line of JSON and flush it."""
    output.write(message.model_dump_json() + "\n")
    output.flush()
