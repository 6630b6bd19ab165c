"""The commands that inspect and maintain a store."""

import sys
from contextlib import ExitStack
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from cotpipe.errors import RunError, UserError
from cotpipe.report.plain import visible
from cotpipe.settings import Settings
from cotpipe.store.artifacts import open_store
from flows.cli.options import RunArgument, StoreOption
from flows.cli.terminal import Terminal
from flows.waiting import told_while_waiting

_SHOWN_ROWS = 100
_SECONDS_OF_LINES = (30.0, 30.0)  # to the first line of progress, and between lines, in a log


def runs(store: StoreOption = None) -> None:
    """List all runs, oldest first."""
    from cotpipe.runs.log import read_runs
    from flows.cli.results import show_runs

    show_runs(read_runs(open_store(Settings()).storage), Terminal())


def show(run: RunArgument, store: StoreOption = None) -> None:
    """Show one run: steps, reuse, timings, versions, results."""
    from cotpipe.runs.log import find_run
    from flows.cli.results import show_run

    opened = open_store(Settings())
    show_run(find_run(opened.storage, run), opened, Terminal())


def sql(
    query: Annotated[
        str | None, typer.Argument(metavar="SELECT", help="One select statement.")
    ] = None,
    tables: Annotated[
        bool, typer.Option("--tables", help="Show all tables with their columns instead.")
    ] = False,
    store: StoreOption = None,
    csv: Annotated[bool, typer.Option("--csv", help="Write CSV to standard output.")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Write JSON Lines to standard output.")
    ] = False,
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Write Parquet to standard output.")
    ] = False,
) -> None:
    """Query the tables of the store with DuckDB; --tables lists them."""
    from cotpipe.runs.catalog import query as ask
    from cotpipe.runs.catalog import sql_errors, views
    from flows.cli.results import show_rows, show_views

    if tables == (query is not None):
        raise UserError(
            "sql: give a select statement, such as cotpipe sql 'from runs', or --tables to list the tables"
        )
    if query is None:
        show_views(views(), Terminal())
        return
    if csv + json + parquet > 1:
        raise UserError("sql: choose one of --csv, --json and --parquet")
    if parquet and sys.stdout.isatty():
        raise UserError(
            "sql: Parquet is binary; redirect it to a file: cotpipe sql --parquet 'select ...' > FILE"
        )
    relation = ask(open_store(Settings()), query, to_stdout=csv or json)
    with sql_errors():
        if parquet:
            _write_parquet(relation)
        elif csv or json:
            copy = "copy (select * from result) to '/dev/stdout' (format {})"
            relation.query("result", copy.format("csv" if csv else "json"))
        else:
            rows = relation.limit(_SHOWN_ROWS + 1).fetchall()
            show_rows(relation.columns, rows[:_SHOWN_ROWS], Terminal(), len(rows) > _SHOWN_ROWS)


def _checked(progress: Progress) -> str:
    (task,) = progress.tasks
    total = "" if task.total is None else f" of {task.total / 1e9:.1f}"
    return f"checking: {task.completed / 1e9:.1f}{total} GB, for {task.elapsed or 0:.0f} s so far"


def verify(store: StoreOption = None) -> None:
    """Verify the checksums of all artifacts; runs rebuild damaged ones."""
    from cotpipe.runs.upkeep import verify as check

    columns = (TextColumn("checking"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Terminal(stderr=True)
    with Progress(*columns, console=console, transient=True) as progress, ExitStack() as stack:
        bar = progress.add_task("checking", total=None)
        if not console.is_terminal:  # there the bar does not show
            stack.enter_context(
                told_while_waiting(*_SECONDS_OF_LINES, lambda _: _checked(progress))
            )
        found = check(
            open_store(Settings()),
            lambda done, total: progress.update(bar, completed=done, total=total),
        )
    damaged = [item for item in found if item.damaged]
    for item in damaged:
        sys.stdout.write(visible(f"damaged: {item.reference}: {', '.join(item.damaged)}") + "\n")
    if damaged:
        raise RunError(
            f"{len(damaged)} of {len(found)} artifacts are damaged; runs that need them will rebuild them"
        )
    sys.stdout.write(f"{len(found)} artifacts are intact\n")


def gc(
    keep_runs: Annotated[
        int, typer.Option(min=0, help="Number of newest runs whose artifacts to keep.")
    ],
    store: StoreOption = None,
    grace_hours: Annotated[
        float, typer.Option(min=0, help="Hours for which garbage is kept before it is removed.")
    ] = 24.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would be done.")
    ] = False,
) -> None:
    """Set aside artifacts that no kept run needs; a later gc removes them.

    Damaged artifacts and leftovers of interrupted runs go at once if they are older than the grace
    period. Kept are: live runs, unfinished runs of the last week, and artifacts in progress. What is
    set aside stays usable, and whatever a run uses is taken back.
    """
    from cotpipe.runs.collection import collect_garbage
    from cotpipe.runs.garbage import find_garbage

    opened = open_store(Settings())
    look, garbage = find_garbage(opened, keep_runs, grace_hours * 3600)
    removed = garbage if dry_run else collect_garbage(opened, look, garbage)
    lines = [("removed", item) for item in removed if item.ready]
    lines += [("set aside", item) for item in garbage if not item.ready]
    for what, item in lines:
        size = f"{item.num_bytes / 1e6:.1f} MB"
        sys.stdout.write(visible(f"{what}: {item.name}  {size}  {item.why}") + "\n")
    for name in look.taken_back():
        sys.stdout.write(visible(f"taken back: {name}") + "\n")
    freed, waiting = (
        sum(item.num_bytes for said, item in lines if said == what) / 1e6
        for what in ("removed", "set aside")
    )
    sys.stdout.write(f"{freed:.1f} MB {'would be' if dry_run else 'are'} freed\n")
    if waiting:
        sys.stdout.write(
            f"{waiting:.1f} MB set aside: a gc {grace_hours:g} hours from now, or later, removes what "
            "no run has used until then; a larger --keep-runs takes it back\n"
        )


def _write_parquet(relation: Any) -> None:
    import pyarrow.parquet as pq

    pq.write_table(relation.to_arrow_table(), sys.stdout.buffer)
