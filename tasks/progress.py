"""How far a step is: a bar in a terminal, a progress artifact in Prefect's UI, lines in the run's log."""

import re
import sys
import threading
import time
from collections.abc import Mapping
from contextvars import copy_context
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.exceptions import PrefectHTTPStatusError
from prefect.logging import get_run_logger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 15.0
_SECONDS_BETWEEN_UPDATES = 5.0
_SHOWN = ("loss", "reward", "correct", "entropy", "completion_tokens")


class StepProgress:
    """Reports one step of a run; use it as a context manager and call it, from any thread, as the library's `Report`.

    The artifact is kept up to date by a thread of its own: a server that is slow or away holds no step up.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._logger = get_run_logger()
        self._last_line = time.monotonic()
        self._artifact: UUID | None = None
        self._state: tuple[float, str] | None = None  # percent, and what is said of it
        self._over = threading.Event()
        self._updates = threading.Thread(target=copy_context().run, args=(self._keep_up_to_date,), daemon=True)
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
        self._updates.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._updates.join(_SECONDS_BETWEEN_UPDATES)
        self._bars.stop()

    def finish(self, outcome: str) -> None:
        """Say what became of the step."""
        total = self._bars.tasks[self._bar].total or 1
        self._bars.update(self._bar, completed=total, total=total, figures=outcome)
        self._state = (100.0, outcome)
        self._logger.info("%s: %s", self._kind, outcome)

    def note(self, text: str) -> None:
        """Show why nothing is being done."""
        self._bars.update(self._bar, figures=text)
        self._log_now_and_then(text)

    def __call__(self, done: int, total: int, figures: Mapping[str, float]) -> None:
        """Show how much is done, and the figures that matter to a reader."""
        shown = "  ".join(f"{name} {figures[name]:.3g}" for name in _SHOWN if name in figures)
        self._bars.update(self._bar, completed=done, total=total, figures=shown)
        text = f"{done} of {total}  {shown}"
        self._state = (100 * done / total if total else 0.0, text)
        self._log_now_and_then(text)

    def log(self, line: str) -> None:
        """Pass on a line that a working process has written."""
        self._logger.info("%s: %s", self._kind, line)

    def _log_now_and_then(self, text: str) -> None:
        now = time.monotonic()
        if now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._logger.info("%s: %s", self._kind, text)

    def _keep_up_to_date(self) -> None:
        """Steps that are over before the first update is due get no artifact."""
        shown = None
        while not self._over.wait(_SECONDS_BETWEEN_UPDATES):
            if self._state and self._state != shown:
                shown = self._state
                self.show(*shown)
        if self._artifact and self._state:
            self.show(*self._state)

    def show(self, percent: float, text: str) -> None:
        """Bring the artifact up to date, or make it."""
        description = f"{self._kind}: {text}"
        try:
            if self._artifact is None:
                key = re.sub("[^a-z0-9]+", "-", f"progress-{self._kind.lower()}")
                created: Any = create_progress_artifact(percent, key, description)
                self._artifact = created
            else:
                update_progress_artifact(self._artifact, percent, description)
        except (httpx.TransportError, PrefectHTTPStatusError) as error:
            self._logger.warning("%s: its progress cannot be shown: %s", self._kind, error)
