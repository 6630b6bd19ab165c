"""What the commands show in the terminal: results, plans, runs, tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.tree import Tree

from cotpipe.curriculum import STEPS
from cotpipe.errors import RunError
from cotpipe.plan import PlannedStep, flatten
from cotpipe.records import Record, Reference
from cotpipe.report import CHECKPOINTS, TITLES, Summary, comparisons, number, percent, read_evaluations, summarise
from cotpipe.runs import Run
from cotpipe.store import Store


def show_results(artifacts: Mapping[str, Reference], store: Store, console: Console) -> None:
    """Print the result table, what the stages changed, and where report and checkpoint lie."""
    rows = read_evaluations(
        {
            name: store.path(_found(artifacts[f"evaluation-{name}"], store), "evaluations.parquet")
            for name in CHECKPOINTS
        }
    )
    table = Table(title=f"{len(rows['base'])} held-out problems, greedy, question only; 95 % intervals")
    for heading in ("checkpoint", "accuracy", "mean output tokens", "valid format"):
        table.add_column(heading, justify="left" if heading == "checkpoint" else "right")
    for name in CHECKPOINTS:
        row = summarise(name, rows[name])
        table.add_row(TITLES[name], percent(row.accuracy), number(row.tokens), percent(row.valid_format))
    console.print(table)
    for change in comparisons(rows)[2:]:
        console.print(f"{TITLES[change.after]} against {TITLES[change.before]}: {change.verdict}")
    for title, kind, name in (("report", "report", "report.md"), ("student", "stage3", "model")):
        record = _found(artifacts[kind], store)
        place = store.storage.location(f"{record.folder}/{name}")
        console.print(f"{title}: {place}", soft_wrap=True, highlight=False)


def show_plan(recipe_name: str, planned: Sequence[PlannedStep], console: Console) -> None:
    """Print the steps as a tree, each under the last of its inputs: reused, or to run and why."""
    tree = Tree(f"[bold]{recipe_name}")
    branches: dict[str, Tree] = {}
    order = list(STEPS)
    for step in planned:
        above = max(STEPS[step.kind].inputs, key=order.index, default=None)
        verdict = "[green]reused[/]" if step.reused else f"[yellow]to run[/]: {step.why}"
        branch = branches[above] if above else tree
        branches[step.kind] = branch.add(f"{step.kind}  [dim]{step.reference.fingerprint[:8]}[/]  {verdict}")
    console.print(tree)
    to_run = sum(not step.reused for step in planned)
    console.print(f"{len(planned) - to_run} of {len(planned)} steps are reused, {to_run} are to run")


def show_runs(runs: Sequence[Run], console: Console) -> None:
    """Print one line a run; why one failed is what `show_run` tells."""
    table = Table(*(Column(name, no_wrap=True) for name in ("run", "recipe", "state", "made", "reused", "seconds")))
    for run in runs:
        reused = sum(step.reused for step in run.steps.values())
        seconds = "" if run.seconds is None else f"{run.seconds:.0f}"
        made = str(len(run.steps) - reused)
        table.add_row(run.run_id, run.recipe["name"], run.state, made, str(reused), seconds)
    console.print(table if runs else "no runs yet")


def show_run(run: Run, store: Store, console: Console) -> None:
    """Print everything about one run."""
    commit = f", commit {run.git_commit}" if run.git_commit else ""
    console.print(f"[bold]{run.run_id}[/]  recipe {run.recipe['name']}, {run.state}, on {run.host}{commit}")
    console.print(
        f"started {run.started_at}, finished {run.finished_at or '-'}" + (f", {run.error}" if run.error else "")
    )
    console.print(", ".join(f"{name} {version}" for name, version in run.versions.items()), style="dim")
    table = Table("step", "artifact", "", "seconds")
    for kind, step in run.steps.items():
        table.add_row(kind, run.artifacts[kind], "reused" if step.reused else "made", f"{step.seconds:.1f}")
    console.print(table)
    if run.outcome == "completed" and all(store.record(reference) for reference in run.references.values()):
        show_results(run.references, store, console)


def show_difference(first: Run, second: Run, store: Store, console: Console) -> None:
    """Print the recipe keys and the results in which two runs differ."""
    recipes = flatten(first.recipe), flatten(second.recipe)
    keys = sorted(key for key in recipes[0].keys() | recipes[1].keys() if recipes[0].get(key) != recipes[1].get(key))
    table = Table("recipe key", first.run_id, second.run_id)
    for key in keys:
        table.add_row(key, str(recipes[0].get(key, "-")), str(recipes[1].get(key, "-")))
    console.print(table if keys else "the recipes are the same")
    table = Table("result", first.run_id, second.run_id)
    summaries = _summaries(first, store), _summaries(second, store)
    for name in CHECKPOINTS:
        pair = [summary.get(name) for summary in summaries]
        for title, show in (("accuracy", _accuracy), ("mean output tokens", _tokens)):
            table.add_row(f"{TITLES[name]}: {title}", *(show(summary) for summary in pair))
    console.print(table)


def show_rows(columns: Sequence[str], rows: Sequence[Sequence[Any]], console: Console, more: bool) -> None:
    """Print the result of a query."""
    table = Table(*columns)
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    console.print(table)
    if more:
        console.print(f"the first {len(rows)} rows; --csv, --json or --parquet writes them all", style="dim")


def _summaries(run: Run, store: Store) -> dict[str, Summary]:
    """The results of those checkpoints that the run has evaluated and that are still there."""
    found = {}
    for name in CHECKPOINTS:
        reference = run.references.get(f"evaluation-{name}")
        if reference and (record := store.find(reference)):
            path = store.path(record, "evaluations.parquet")
            found[name] = summarise(name, read_evaluations({name: path})[name])
    return found


def _accuracy(summary: Summary | None) -> str:
    return percent(summary.accuracy) if summary else "-"


def _tokens(summary: Summary | None) -> str:
    return number(summary.tokens) if summary else "-"


def _found(reference: Reference, store: Store) -> Record:
    record = store.find(reference)
    if record is None:
        raise RunError(f"{reference} is damaged or gone; run again to build it anew")
    return record
