"""The command that finds the report of a run, and shows it."""

import sys
from typing import Annotated

import typer

from cotpipe.errors import RunError, UserError
from cotpipe.report.plain import visible
from cotpipe.settings import Settings
from cotpipe.store.artifacts import Store, open_store
from cotpipe.store.records import Record
from flows.cli.options import RunArgument, StoreOption

_PAGE, _TEXT = "report.html", "report.md"


def report(
    run: RunArgument,
    store: StoreOption = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    text: Annotated[
        bool, typer.Option("--text", help="Print the report as Markdown instead.")
    ] = False,
) -> None:
    """Print where the report of a run lies on this machine: one page, fetched if the store is remote."""
    if open_ and text:
        raise UserError("report: choose one of --open and --text")
    opened = open_store(Settings())
    record = _report_of(run, opened)
    if text:
        content = opened.path(record, _TEXT).read_text(encoding="utf-8")
        sys.stdout.write(visible(content))
        return
    page = opened.path(record, _PAGE).resolve()
    sys.stdout.write(f"{page}\n")
    if open_:
        import webbrowser

        if not webbrowser.open(page.as_uri()):
            raise RunError("no browser could be started; open the page yourself")


def _report_of(name: str, store: Store) -> Record:
    """The record of a run's report, whose files are checked.

    Raises `UserError` if the run has none, or one without a page.
    """
    from cotpipe.runs.log import find_run

    run = find_run(store.storage, name)
    reference = run.references.get("report")
    record = store.check(reference) if reference else None
    again = f"cotpipe rerun {run.run_id} makes it, and reuses all that is finished"
    if record is None:
        raise UserError(
            f"run {run.run_id} ({run.state}) has no report in the store {store.storage.address}; {again}"
        )
    if not any(file.path == _PAGE for file in record.files):
        raise UserError(
            f"the report of run {run.run_id} is of an earlier cotpipe and has no page; {again}"
        )
    return record
