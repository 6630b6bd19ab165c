"""Progress of a step: a terminal bar, log lines, and a progress artifact in the Prefect UI."""

import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from contextvars import copy_context
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.exceptions import PrefectHTTPStatusError
from prefect.logging import get_run_logger
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from cotpipe.errors import TransientError
from cotpipe.report.markdown import escape
from cotpipe.report.plain import visible

_SECONDS_BETWEEN_LINES = 15.0  # twice that without news
_SECONDS_BETWEEN_UPDATES = 5.0
_SECONDS_TO_END = 5.0
_SHOWN = ("loss", "reward", "correct", "entropy", "completion_tokens", "validation_accuracy")


@dataclass(frozen=True)
class Standing:
    """The current status of a step; no percentage before the first update."""

    text: str
    percent: float | None = None


class StepProgress:
    """Reports one step of a run: a context manager, and a thread-safe `Progress` of the library.

    Log lines and the artifact are updated from threads of their own, so a silent step is still seen
    to be running, and a slow or unreachable server does not delay the step.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._logger = get_run_logger()
        self._standing = Standing("started")
        self._bar = _Bar(kind) if sys.stderr.isatty() else None
        self._shown = ExitStack()

    def __enter__(self) -> Self:
        lines = _Lines(self._kind, self._logger)
        artifact = ProgressArtifact(self._kind, self._logger)
        lines.show(self._standing, last=False)
        for shown, seconds in (
            (lines, _SECONDS_BETWEEN_LINES),
            (artifact, _SECONDS_BETWEEN_UPDATES),
        ):
            self._shown.enter_context(_Regularly(seconds, self._now, shown.show))
        if self._bar:
            self._shown.enter_context(self._bar.progress)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, TransientError):  # the retry may be a minute away
            self.note(f"failed: {error}")
        self._shown.close()

    def __call__(self, done: int, total: int, figures: Mapping[str, float] = {}) -> None:
        """Show how much is done, and the main metrics."""
        shown = "  ".join(f"{name} {figures[name]:.3g}" for name in _SHOWN if name in figures)
        percent = 100 * done / total if total else 0.0
        self._standing = Standing(f"{done} of {total}  {shown}".rstrip(), percent)
        if self._bar:
            self._bar.show(shown, done, total)

    def note(self, text: str) -> None:
        """Show why the step is waiting."""
        text = visible(text)
        self._standing = Standing(text, self._standing.percent)
        if self._bar:
            self._bar.show(text)

    def finish(self, outcome: str) -> None:
        """Show the outcome of the step."""
        outcome = visible(outcome)
        self._standing = Standing(outcome, 100.0)
        if self._bar:
            self._bar.finish(outcome)

    def log(self, line: str) -> None:
        """Log a line of output from a subprocess."""
        self._logger.info("%s: %s", self._kind, visible(line))

    def _now(self) -> Standing:
        return self._standing


class _Regularly:
    """A thread that shows the status at a fixed interval, and at the end of the `with` block."""

    def __init__(
        self, seconds: float, now: Callable[[], Standing], show: Callable[[Standing, bool], None]
    ) -> None:
        self._seconds, self._now, self._show = seconds, now, show
        self._over = threading.Event()
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._repeat,), daemon=True
        )

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(_SECONDS_TO_END)

    def _repeat(self) -> None:
        while not self._over.wait(self._seconds):
            self._show(self._now(), False)
        self._show(self._now(), True)


class _Bar:
    """A progress bar in the terminal."""

    def __init__(self, kind: str) -> None:
        columns = (
            TextColumn("{task.description:<22}", style="bold", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
        )
        self.progress = Progress(*columns, console=Console(stderr=True))
        self._task = self.progress.add_task(kind, total=None, figures="")

    def show(self, figures: str, done: int | None = None, total: int | None = None) -> None:
        self.progress.update(self._task, completed=done, total=total, figures=figures)

    def finish(self, outcome: str) -> None:
        total = int(self.progress.tasks[self._task].total or 1)
        self.show(outcome, total, total)


class _Lines:
    """Lines in the run's log; if hidden (`cotpipe run`), on stderr, unless that has the bar."""

    def __init__(self, kind: str, logger: "logging.LoggerAdapter[Any] | logging.Logger") -> None:
        self._kind, self._logger = kind, logger
        self._started = time.monotonic()
        self._said: Standing | None = None
        self._was_silent = False

    def show(self, standing: Standing, last: bool) -> None:
        """Write a line if the status has changed, and at least every second time."""
        is_old = standing == self._said
        if is_old and (last or not self._was_silent):
            self._was_silent = True
            return
        self._said, self._was_silent = standing, False
        if self._logger.isEnabledFor(logging.INFO):
            self._logger.info("%s: %s", self._kind, standing.text)
        elif not sys.stderr.isatty():
            elapsed = timedelta(seconds=int(time.monotonic() - self._started))
            sys.stderr.write(f"{self._kind:<18} {elapsed}  {standing.text}\n")
            sys.stderr.flush()


class ProgressArtifact:
    """The progress artifact on the run's page; steps that end before the first update get none."""

    def __init__(self, kind: str, logger: "logging.LoggerAdapter[Any] | logging.Logger") -> None:
        self._kind, self._logger = kind, logger
        self._id: UUID | None = None
        self._shown: Standing | None = None

    def show(self, standing: Standing, last: bool) -> None:
        """Create or update the artifact."""
        if standing.percent is None or standing == self._shown or (last and self._id is None):
            return
        self._shown = standing
        description = escape(f"{self._kind}: {standing.text}")
        try:
            if self._id is None:
                key = re.sub("[^a-z0-9]+", "-", f"progress-{self._kind.lower()}")
                created: Any = create_progress_artifact(standing.percent, key, description)
                self._id = created
            else:
                update_progress_artifact(self._id, standing.percent, description)
        except (httpx.TransportError, PrefectHTTPStatusError) as error:
            self._logger.warning("%s: cannot update the progress artifact: %s", self._kind, error)
