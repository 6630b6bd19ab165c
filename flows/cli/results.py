"""Terminal output of the commands: results, plans, runs, tables."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Column, Table
from rich.tree import Tree

from cotpipe.errors import RunError
from cotpipe.recipe.stages import title_of
from cotpipe.report.compared import (
    HEADINGS,
    Compared,
    method,
    rows_of,
    verdicts,
    without_result,
)
from cotpipe.report.summary import (
    Summary,
    compare,
    comparisons,
    corrected,
    number,
    percent,
    read_evaluations,
    summarise,
)
from cotpipe.runs.answers import answers_of
from cotpipe.runs.catalog import View
from cotpipe.runs.log import Run, checkpoints_of
from cotpipe.steps.plan import PlannedStep, flatten
from cotpipe.store.artifacts import Store
from cotpipe.store.records import Record, Reference
from flows.cli.terminal import Terminal, styled

_WIDE = 150
"""Columns that a comparison takes in one line an arm."""
_COSTS = 3
"""The last of its headings, about what an arm costs."""


def show_results(references: Mapping[str, Reference], store: Store, console: Terminal) -> None:
    """Print the result table, the comparisons, and the locations of report and checkpoint."""
    names = checkpoints_of(references)
    rows = read_evaluations(
        {
            name: store.path(_found(references[f"evaluation-{name}"], store), "evaluations.parquet")
            for name in names
        }
    )
    table = Table(
        title=f"{len(rows['base'])} held-out problems, greedy, question only; 95 % intervals"
    )
    for heading in ("checkpoint", "accuracy", "mean output tokens", "valid format"):
        table.add_column(heading, justify="left" if heading == "checkpoint" else "right")
    for name in names:
        row = summarise(name, rows[name])
        table.add_row(
            title_of(name), percent(row.accuracy), number(row.tokens), percent(row.valid_format)
        )
    console.print(table)
    starts = {name: _start(_found(references[name], store)) for name in names[1:]}
    for change in comparisons(starts, rows):
        if change.before != "base":
            console.print(
                f"{title_of(change.after)} against {title_of(change.before)}: {change.verdict}"
            )
    for title, kind, name in (("report", "report", "report.html"), ("student", names[-1], "model")):
        record = _found(references[kind], store)
        place = store.storage.location(f"{record.folder}/{name}")
        console.print(f"{title}: {place}", soft_wrap=True)


def _start(record: Record) -> str:
    """The initial checkpoint of a stage, from its record."""
    return next(kind for kind in record.inputs if not kind.endswith("-examples"))


def show_plan(recipe_name: str, planned: Sequence[PlannedStep], console: Terminal) -> None:
    """Print the steps as a tree, each under its last input: reused, or to run and why."""
    tree = Tree(styled((recipe_name, "bold")))
    branches: dict[str, Tree] = {}
    order = [step.kind for step in planned]
    for step in planned:
        above = max(step.inputs, key=order.index, default=None)
        verdict = [("reused", "green")] if step.reused else [("to run", "yellow"), f": {step.why}"]
        branch = branches[above] if above else tree
        name = (step.reference.fingerprint[:8], "dim")
        branches[step.kind] = branch.add(styled(f"{step.kind}  ", name, "  ", *verdict))
    console.print(tree)
    to_run = sum(not step.reused for step in planned)
    console.print(f"{len(planned) - to_run} of {len(planned)} steps are reused, {to_run} will run")


def show_runs(runs: Sequence[Run], console: Terminal) -> None:
    """Print one line per run; `show_run` gives the reason of a failure."""
    table = Table(
        *(
            Column(name, no_wrap=True)
            for name in ("run", "recipe", "state", "made", "reused", "seconds")
        )
    )
    for run in runs:
        reused = sum(step.reused for step in run.steps.values())
        seconds = "" if run.seconds is None else f"{run.seconds:.0f}"
        made = str(len(run.steps) - reused)
        table.add_row(run.run_id, run.recipe["name"], run.state, made, str(reused), seconds)
    console.print(table if runs else "no runs yet")


def show_run(run: Run, store: Store, console: Terminal) -> None:
    """Print the details of one run."""
    commit = f", commit {run.git_commit}" if run.git_commit else ""
    heading = f"  recipe {run.recipe['name']}, {run.state}, on {run.host}{commit}"
    console.print(styled((run.run_id, "bold"), heading))
    console.print(
        f"started {run.started_at}, finished {run.finished_at or '-'}"
        + (f", {run.error}" if run.error else "")
    )
    console.print(
        ", ".join(f"{name} {version}" for name, version in run.versions.items()), style="dim"
    )
    table = Table("step", "artifact", "", "seconds")
    for kind, step in run.steps.items():
        table.add_row(
            kind, run.artifacts[kind], "reused" if step.reused else "made", f"{step.seconds:.1f}"
        )
    console.print(table)
    if run.outcome == "completed" and all(
        store.record(reference) for reference in run.references.values()
    ):
        show_results(run.references, store, console)


def show_difference(first: Run, second: Run, store: Store, console: Terminal) -> None:
    """Print the recipe keys in which two runs differ, and their results.

    Args:
        first: The first run.
        second: The second run.
        store: The store with their evaluations.
        console: The console to print to.
    """
    recipes = flatten(first.recipe), flatten(second.recipe)
    keys = sorted(
        key
        for key in recipes[0].keys() | recipes[1].keys()
        if recipes[0].get(key) != recipes[1].get(key)
    )
    table = Table("recipe key", first.run_id, second.run_id)
    for key in keys:
        table.add_row(key, str(recipes[0].get(key, "-")), str(recipes[1].get(key, "-")))
    console.print(table if keys else "the recipes are the same")
    table = Table("result", first.run_id, second.run_id)
    summaries = _summaries(first, store), _summaries(second, store)
    for name in dict.fromkeys((*first.checkpoints, *second.checkpoints)):
        pair = [summary.get(name) for summary in summaries]
        for title, show in (("accuracy", _accuracy), ("mean output tokens", _tokens)):
            table.add_row(f"{title_of(name)}: {title}", *(show(summary) for summary in pair))
    console.print(table)
    for line in _paired(first, second, store):
        console.print(line)


def _paired(first: Run, second: Run, store: Store) -> list[str]:
    """What the second run's checkpoints change against those of the first, problem by problem."""
    found = answers_of(first, store), answers_of(second, store)
    names = [name for name in found[0] if name in found[1]]
    if not names:
        return ["no checkpoint of the same name was evaluated in both"]
    asked = [[rows["problem_id"].tolist() for rows in one.values()] for one in found]
    if any(problems != asked[0][0] for one in asked for problems in one):
        return ["they were evaluated on different problems, so nothing is compared one by one"]
    pairs = [compare(name, name, *found) for name in names]
    return [
        f"{title_of(one.after)} of {second.run_id} {one.verdict} ({percent(one.accuracy)}, "
        f"{number(one.tokens)} tokens)"
        for one in corrected(pairs)
    ]


def show_compared(compared: Compared, console: Terminal) -> None:
    """Print the result of a comparison of arms; in a narrow terminal, what they cost in a table of its own."""
    rows = rows_of(compared)
    parts: list[tuple[str, ...]] = [HEADINGS]
    if console.width < _WIDE:
        parts = [HEADINGS[:-_COSTS], (HEADINGS[0], *HEADINGS[-_COSTS:])]
        rows = [tuple(map(_stacked, row)) for row in rows]
    for part in parts if compared.scores else []:
        table = Table(*part, title=f"comparison {compared.name}")
        for row in rows:
            cells = dict(zip(HEADINGS, row, strict=True))
            table.add_row(*(cells[heading] for heading in part))
        console.print(table)
    for sentence in (*verdicts(compared), *without_result(compared)):
        console.print(sentence)
    if compared.contrasts:
        console.print(method(compared), style="dim")


def _stacked(cell: str) -> str:
    """Estimates, their intervals and remarks one under the other."""
    return cell.replace("], ", "]\n").replace(" [", "\n[").replace("; ", "\n")


def show_rows(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], console: Terminal, more: bool
) -> None:
    """Print the result of a query.

    Args:
        columns: Column names.
        rows: The rows to show.
        console: The console to print to.
        more: Whether the result has further rows.
    """
    table = Table(*columns)
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    console.print(table)
    if more:
        console.print(
            f"first {len(rows)} rows; use --csv, --json or --parquet for all", style="dim"
        )


def show_views(views: Iterable[View], console: Terminal) -> None:
    """Print what can be queried: each view, what its rows are, and its columns with their types."""
    for view in views:
        columns = ", ".join(f"{name} {kind.lower()}" for name, kind in view.columns.items())
        console.print(styled((view.name, "bold"), f"  {view.meaning}"), soft_wrap=True)
        console.print(f"    {columns}", style="dim", soft_wrap=True)


def _summaries(run: Run, store: Store) -> dict[str, Summary]:
    """The results of the run's evaluated checkpoints that are still in the store."""
    return {name: summarise(name, rows) for name, rows in answers_of(run, store).items()}


def _accuracy(summary: Summary | None) -> str:
    return percent(summary.accuracy) if summary else "-"


def _tokens(summary: Summary | None) -> str:
    return number(summary.tokens) if summary else "-"


def _found(reference: Reference, store: Store) -> Record:
    record = store.find(reference)
    if record is None:
        raise RunError(f"{reference} is damaged or missing; run again to rebuild it")
    return record
