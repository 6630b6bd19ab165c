"""Messages of a training process to its launcher: JSON lines on standard output."""

from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ConfigDict, ValidationError


class Event(BaseModel):
    """Progress of training and the metrics logged at one optimizer step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    num_steps: int
    figures: dict[str, float]


class Rows(BaseModel):
    """What became of the training rows; with none kept, there is no training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows_kept: int  # trained on
    rows_dropped: int = 0  # too long
    rows_left_over: int = 0  # too few for another optimizer step
    longest_row: int = 0  # tokens, of all rows


class SavedTrainingState(BaseModel):
    """A training state was written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    folder: Path


class Validated(BaseModel):
    """Greedy answers to the validation problems at one optimizer step, in the problems' order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int  # 0: before training
    correct: list[bool]
    num_tokens: list[int]

    @property
    def accuracy(self) -> float:
        """The share of right answers, in [0, 1]."""
        return sum(self.correct) / len(self.correct)

    @property
    def tokens(self) -> float:
        """The mean length (tokens)."""
        return sum(self.num_tokens) / len(self.num_tokens)


class Kept(BaseModel):
    """The optimizer step whose state is the stage's checkpoint; 0: the checkpoint it started from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kept_step: int


class Refusal(BaseModel):
    """Training stopped because of a user error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user_error: str


class OutOfMemory(BaseModel):
    """Training ran out of GPU or host memory."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    out_of_memory: str


class Failure(BaseModel):
    """A training process ended with an exception."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    failed: str


Message = Event | Rows | SavedTrainingState | Validated | Kept | Refusal | OutOfMemory | Failure


def read_message(line: str) -> Message | None:
    """Parse a line of standard output; None if it is no message but a library's output."""
    for kind in get_args(Message):
        try:
            message: Message = kind.model_validate_json(line)
        except ValidationError:
            continue
        return message
    return None
