"""How far a step is: a moving bar in a terminal, its last state elsewhere, lines in the run's log everywhere."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from prefect.logging import get_run_logger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 15.0
_SHOWN = ("loss", "reward", "correct", "entropy", "completion_tokens")


class StepProgress:
    """Reports one step of a run; use it as a context manager and call it as the library's `Report`."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._logger = get_run_logger()
        self._last_line = time.monotonic()
        columns = (
            TextColumn("[bold]{task.description:<22}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        self._bars = Progress(*columns, console=Console(file=sys.stderr, width=None if sys.stderr.isatty() else 140))
        self._bar = self._bars.add_task(kind, total=None, figures="")

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()

    def finish(self, outcome: str) -> None:
        """Say what became of the step."""
        total = self._bars.tasks[self._bar].total or 1
        self._bars.update(self._bar, completed=total, total=total, figures=outcome)
        self._logger.info("%s: %s", self._kind, outcome)

    def note(self, text: str) -> None:
        """Show why nothing is being done."""
        self._bars.update(self._bar, figures=text)
        self._log_now_and_then(text)

    def __call__(self, done: int, total: int, figures: Mapping[str, float]) -> None:
        """Show how much is done, and the figures that matter to a reader."""
        shown = "  ".join(f"{name} {figures[name]:.3g}" for name in _SHOWN if name in figures)
        self._bars.update(self._bar, completed=done, total=total, figures=shown)
        self._log_now_and_then(f"{done} of {total}  {shown}")

    def _log_now_and_then(self, text: str) -> None:
        now = time.monotonic()
        if now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._logger.info("%s: %s", self._kind, text)
