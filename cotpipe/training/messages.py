"""Messages of a training process to its launcher: JSON lines on standard output."""

from pathlib import Path

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


Message = Event | Rows | SavedTrainingState | Refusal | OutOfMemory | Failure


def read_message(line: str) -> Message | None:
    """Parse a line of standard output; None if it is no message but a library's output."""
    for kind in (Event, SavedTrainingState, Rows, Refusal, OutOfMemory, Failure):
        try:
            return kind.model_validate_json(line)
        except ValidationError:
            continue
    return None
