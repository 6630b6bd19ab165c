"""The commands that look into a store and look after it."""

import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from cotpipe.errors import RunError, UserError
from cotpipe.settings import Settings
from cotpipe.store import Store, open_store

StoreOption = Annotated[
    str | None, typer.Option("--store", help="A folder or s3://bucket/prefix [default: $COTPIPE_STORE or ./store].")
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, a part of it, or `last`.")]
_SHOWN_ROWS = 100


def store_at(address: str | None) -> Store:
    """The store that an option names, or the settings where there is no option."""
    return open_store(Settings(store=address) if address else Settings())


def runs(store: StoreOption = None) -> None:
    """List the runs, the oldest first."""
    from cotpipe.runs import read_runs
    from flows.results import show_runs

    show_runs(read_runs(store_at(store).storage), Console())


def show(run: RunArgument, store: StoreOption = None) -> None:
    """Show one run: its steps, what was reused, timings, versions, results."""
    from cotpipe.runs import find_run
    from flows.results import show_run

    opened = store_at(store)
    show_run(find_run(opened.storage, run), opened, Console())


def diff(first: RunArgument, second: RunArgument, store: StoreOption = None) -> None:
    """Show the recipe keys and the results in which two runs differ."""
    from cotpipe.runs import find_run
    from flows.results import show_difference

    opened = store_at(store)
    show_difference(find_run(opened.storage, first), find_run(opened.storage, second), opened, Console())


def sql(
    query: Annotated[str, typer.Argument(metavar="SELECT", help="One select statement.")],
    store: StoreOption = None,
    csv: Annotated[bool, typer.Option("--csv", help="Write CSV to standard output.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Write one JSON object a line to standard output.")] = False,
    parquet: Annotated[bool, typer.Option("--parquet", help="Write Parquet to standard output.")] = False,
) -> None:
    """Query all tables of the store with DuckDB.

    Tables: problems, rationales, rejects, teacher, lessons, examples, completions, failures, evaluations,
    training_log, generations (each with the columns kind and fingerprint of its artifact), artifacts, runs, run_steps.
    """
    from cotpipe.catalog import query as ask
    from flows.results import show_rows

    if csv + json + parquet > 1:
        raise UserError("sql: choose one of --csv, --json and --parquet")
    if parquet and sys.stdout.isatty():
        raise UserError("sql: Parquet is no text; send it to a file: cotpipe sql --parquet 'select ...' > FILE")
    relation = ask(store_at(store), query)
    if parquet:
        _write_parquet(relation)
    elif csv or json:
        copy = "copy (select * from result) to '/dev/stdout' (format {})"
        relation.query("result", copy.format("csv" if csv else "json"))
    else:
        head = relation.limit(_SHOWN_ROWS + 1).fetchall()
        show_rows(relation.columns, head[:_SHOWN_ROWS], Console(), more=len(head) > _SHOWN_ROWS)


def verify(store: StoreOption = None) -> None:
    """Hash every file of every artifact and name what is damaged; runs will build that again."""
    from cotpipe.upkeep import verify as check

    columns = (TextColumn("checking"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("checking", total=None)
        found = check(store_at(store), lambda done, total: progress.update(bar, completed=done, total=total))
    damaged = [item for item in found if item.damaged]
    for item in damaged:
        sys.stdout.write(f"damaged: {item.reference}: {', '.join(item.damaged)}\n")
    if damaged:
        raise RunError(
            f"{len(damaged)} of {len(found)} artifacts are damaged; runs will not use them, but build them anew"
        )
    sys.stdout.write(f"{len(found)} artifacts are as their records say\n")


def gc(
    keep_runs: Annotated[int, typer.Option(min=0, help="Keep what so many of the newest runs refer to.")],
    store: StoreOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove what no kept run refers to, damaged artifacts, and what dead runs have left behind.

    Unfinished runs of the last week are always kept, and so is what is being made at the moment.
    """
    from cotpipe.upkeep import collect_garbage, find_garbage

    opened = store_at(store)
    garbage, forgotten = find_garbage(opened, keep_runs)
    for item in garbage:
        sys.stdout.write(f"{item.name}  {item.num_bytes / 1e6:.1f} MB  {item.why}\n")
    for run in forgotten:
        sys.stdout.write(f"runs/{run.run_id}.json  an old run\n")
    if not dry_run:
        collect_garbage(opened, garbage, forgotten)
    total = sum(item.num_bytes for item in garbage) / 1e6
    sys.stdout.write(f"{total:.1f} MB {'would be' if dry_run else 'are'} freed; {len(forgotten)} runs forgotten\n")


def _write_parquet(relation: Any) -> None:
    import pyarrow.parquet as pq

    pq.write_table(relation.to_arrow_table(), sys.stdout.buffer)
