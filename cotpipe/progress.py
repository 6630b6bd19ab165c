"""The progress reporting protocol of steps, engines and training."""

from collections.abc import Mapping
from typing import Protocol


class Progress(Protocol):
    """Receives progress reports; must be thread-safe."""

    def __call__(self, done: int, total: int, figures: Mapping[str, float] = {}) -> None:
        """Report the amount done, the total, and metrics to display."""
        ...

    def note(self, text: str) -> None:
        """Report an event without progress, such as a wait or a decision."""
        ...

    def log(self, line: str) -> None:
        """Forward a log line of a child process."""
        ...


class Silent:
    """A `Progress` that discards all reports."""

    def __call__(self, done: int, total: int, figures: Mapping[str, float] = {}) -> None:
        """Discard the report."""

    def note(self, text: str) -> None:
        """Discard the report."""

    def log(self, line: str) -> None:
        """Discard the report."""
