"""Progress reports of a training process: JSON events on standard output."""

import sys
from typing import Any, TextIO

from pydantic import BaseModel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

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
}
"""The reported metrics: TRL's name to ours."""


class ReportProgress(TrainerCallback):
    """Writes an `Event` per logged optimizer step, from the main process only."""

    def __init__(self, output: TextIO = sys.stdout) -> None:
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
        """Called by the trainer with the metrics of an optimizer step."""
        self._write(state, logs or {}, state.global_step)

    def _write(self, state: TrainerState, logs: dict[str, Any], step: int) -> None:
        figures = {_NAMES[name]: float(value) for name, value in logs.items() if name in _NAMES}
        if figures and state.is_world_process_zero and "train_runtime" not in logs:
            write_line(Event(step=step, num_steps=state.max_steps, figures=figures), self.output)


def write_line(message: BaseModel, output: TextIO = sys.stdout) -> None:
    """Write a message as a line of JSON and flush it."""
    output.write(message.model_dump_json() + "\n")
    output.flush()
