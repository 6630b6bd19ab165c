"""The `cotpipe` command: its command groups and exit statuses."""

import os
import sys
from collections.abc import Callable

import typer

from cotpipe.errors import RunError, UserError
from cotpipe.report.plain import visible
from flows.cli.ask import ask
from flows.cli.compare import compare
from flows.cli.doctor import doctor
from flows.cli.evaluate import evaluate
from flows.cli.export import export
from flows.cli.inbox import inbox
from flows.cli.options import DebugOption
from flows.cli.promote import promote
from flows.cli.report import report
from flows.cli.run import rerun, run
from flows.cli.score import score
from flows.cli.store import gc, runs, show, sql, verify
from flows.cli.up import down, up
from flows.frames import free_frames

_COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Run": (run, rerun, compare, doctor),
    "Judge a model": (evaluate, ask),
    "Inspect results": (runs, show, report, sql, score, export),
    "Maintain a store": (promote, inbox, verify, gc),
    "Prefect server and UI": (up, down),
}
_ENVIRONMENT = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Seconds per request; a slow or busy machine exceeds Prefect's default of a minute.
    "PREFECT_API_REQUEST_TIMEOUT": "600",
}
_QUIET = {
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    "TRANSFORMERS_VERBOSITY": "error",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",  # in a file, each progress bar of a library would be hundreds of lines
}
_LOUD = {"PREFECT_LOGGING_LEVEL": "INFO", "PREFECT_LOGGING_INTERNAL_LEVEL": "INFO"}

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)  # fmt: skip
for panel, commands in _COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)


@app.callback()
def options(debug: DebugOption = False) -> None:
    """Distil a teacher's chains of thought into a small student, in three stages.

    To start, `cotpipe run` trains the demo student on this machine. `cotpipe doctor --recipe NAME`
    checks beforehand whether a recipe can run here.
    """
    # Libraries read these at import, which happens later, in the commands.
    for name, value in (_ENVIRONMENT | (_LOUD if _debug() else _QUIET)).items():
        os.environ.setdefault(name, value)


def main() -> None:
    """Run the command; an error is one line on standard error (a traceback with `--debug`)."""
    try:
        app()
    except (UserError, RunError) as error:
        if _debug():
            raise
        sys.stderr.write(f"cotpipe: {visible(str(error))}\n")
        free_frames(error)
        sys.exit(2 if isinstance(error, UserError) else 1)


def _debug() -> bool:
    """Whether `--debug` is given, before or after the command's name."""
    return "--debug" in sys.argv[1:]


if __name__ == "__main__":
    main()
