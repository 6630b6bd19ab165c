"""What a training process says while it works: one JSON event a line on standard output."""

import sys
from typing import Any, TextIO

from pydantic import BaseModel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from cotpipe.training.job import Event

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
"""The figures that are reported, by their name in TRL."""


class ReportProgress(TrainerCallback):
    """Writes an `Event` per logged step, from the first process only."""

    def __init__(self, output: TextIO = sys.stdout) -> None:
        self.output = output

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A resumed training repeats what was logged before its checkpoint, so that its log is whole."""
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
        """Called by the trainer with the figures of a step."""
        self._write(state, logs or {}, state.global_step)

    def _write(self, state: TrainerState, logs: dict[str, Any], step: int) -> None:
        figures = {_NAMES[name]: float(value) for name, value in logs.items() if name in _NAMES}
        if figures and state.is_world_process_zero and "train_runtime" not in logs:
            write_line(Event(step=step, num_steps=state.max_steps, figures=figures), self.output)


def write_line(message: BaseModel, output: TextIO = sys.stdout) -> None:
    """Write one message as a line of JSON, at once."""
    output.write(message.model_dump_json() + "\n")
    output.flush()
