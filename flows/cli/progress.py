"""Progress of a command that runs steps without a flow: a bar, or lines where none can be shown."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cotpipe.report.plain import visible
from flows.cli.terminal import Terminal
from flows.waiting import told_while_waiting

_SECONDS_OF_LINES = (15.0, 30.0)  # to the first line, and between lines


class ShownProgress:
    """A thread-safe `Progress` of the library, on standard error."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self._task = shown.add_task("", total=None)
        self._standing = "starting"

    def __call__(self, done: int, total: int, figures: Mapping[str, float] = {}) -> None:
        """Show how many answers there are."""
        self._standing = f"{done} of {total} answers"
        self._shown.update(self._task, completed=done, total=total, description="answers")

    def note(self, text: str) -> None:
        """Show what is done or waited for."""
        self._standing = visible(text)
        self._shown.update(self._task, description=self._standing)

    def log(self, line: str) -> None:
        """Print a line above the bar."""
        self._shown.console.print(line, soft_wrap=True)

    def line(self, seconds: float) -> str:
        """How far it is, for a log."""
        return f"{self._standing}, after {seconds:.0f} s"


@contextmanager
def shown_progress() -> Iterator[ShownProgress]:
    """The progress of a command, shown until the `with` block ends."""
    console = Terminal(stderr=True)
    text = TextColumn("{task.description}", markup=False)
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as shown:
        progress = ShownProgress(shown)
        if console.is_terminal:
            yield progress
            return
        with told_while_waiting(*_SECONDS_OF_LINES, progress.line):
            yield progress
