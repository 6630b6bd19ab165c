"""The command that compares: the arms of a comparison, or two runs."""

import tempfile
import webbrowser
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cotpipe.errors import RunError, UserError
from cotpipe.settings import Settings
from cotpipe.store.artifacts import open_store
from flows.cli.options import DebugOption, SetOption, StoreOption
from flows.cli.serving import on_a_server
from flows.cli.terminal import Terminal

if TYPE_CHECKING:
    from cotpipe.recipe.comparison import Comparison
    from cotpipe.store.artifacts import Store


What = Annotated[
    str,
    typer.Argument(
        metavar="COMPARISON|RUN",
        help="A YAML file or shipped comparison (curriculum, rewards); or, with OTHER, a run.",
    ),
]
Other = Annotated[
    str | None,
    typer.Argument(metavar="[OTHER]", help="A second run to compare the first with."),
]
Arms = Annotated[
    list[str] | None,
    typer.Option(metavar="ARM", help="Run only this arm; can be repeated."),
]
SeedNumbers = Annotated[
    list[int] | None,
    typer.Option(metavar="SEED", help="Run only this seed; can be repeated."),
]
BaseRecipe = Annotated[
    str | None,
    typer.Option(
        metavar="RECIPE",
        help="The base recipe: a YAML file or a shipped one. Default: the file's.",
    ),
]
Name = Annotated[
    str | None, typer.Option(help="Its name in the store. Default: the one in the file.")
]
AtOnce = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="Run so many seeds at a time, each in a process with its share of the cores. On a GPU, give "
        "each its share of the memory, too: COTPIPE_GPU_MEMORY_SHARE.",
    ),
]


def compare(
    what: What,
    other: Other = None,
    arm: Arms = None,
    seed: SeedNumbers = None,
    recipe: BaseRecipe = None,
    set_: SetOption = None,
    name: Name = None,
    at_once: AtOnce = 1,
    store: StoreOption = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Run nothing; show what there is and what is missing.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Compare arms over several seeds, or two runs: accuracy, tokens, and whether it is noise.

    A comparison is a YAML file with a base recipe, arms that change it, seeds and a baseline. Every arm
    with every seed is a run. Interrupted, the same command goes on; a seed more costs only its own steps.
    """
    opened = open_store(Settings())
    if other is not None:
        if arm or seed or recipe or set_ or name or dry_run or open_ or at_once > 1:
            raise UserError("compare: two runs are there already: leave out all options")
        _compare_runs(what, other, opened)
        return
    from cotpipe.recipe.comparison import load_comparison

    comparison = load_comparison(what, set_ or [], name, recipe)
    members = comparison.members(arm or (), seed or ())  # refuses unknown ones
    if dry_run:
        _show(comparison, opened)
        return
    seeds = list(dict.fromkeys(seed for _, seed in members))
    run = partial(_run, what, arm or (), seeds, set_ or (), name, recipe)
    if at_once > 1 and len(seeds) > 1:
        command = ["compare", what, *_options(arm=arm, set=set_, name=name, recipe=recipe)]
        command += ["--debug"] if debug else []
        run = partial(_run_seeds, command, seeds, at_once, comparison, opened)
    try:
        on_a_server(run)
    except RunError:
        _show(comparison, opened)
        raise
    _show(comparison, opened)
    if open_:
        _open(comparison.name, opened)


def _compare_runs(first: str, second: str, store: "Store") -> None:
    from cotpipe.runs.log import find_run
    from flows.cli.results import show_difference

    found = find_run(store.storage, first), find_run(store.storage, second)
    show_difference(*found, store, Terminal())


def _run(
    comparison: str,
    arms: Sequence[str],
    seeds: Sequence[int],
    changes: Sequence[str],
    name: str | None,
    recipe: str | None,
) -> None:
    from flows.comparison import compare as flow

    flow(comparison, tuple(arms), tuple(seeds), tuple(changes), name, recipe)


def _options(**values: str | list[str] | None) -> list[str]:
    """Options as they are given to a command."""
    return [
        word
        for name, value in values.items()
        for one in ([value] if isinstance(value, str) else value or [])
        for word in (f"--{name}", one)
    ]


def _run_seeds(
    command: Sequence[str],
    seeds: Sequence[int],
    at_once: int,
    comparison: "Comparison",
    store: "Store",
) -> None:
    from cotpipe.runs.comparisons import compare_arms, require_unchanged, write_page
    from flows.cli.seeds import Seeds

    require_unchanged(store, comparison)
    with Seeds(command, min(at_once, len(seeds)), Settings().num_processes) as several:
        failed = several.run(seeds)
    write_page(store, compare_arms(store, comparison))  # each has written one with what it found
    if failed:
        told = "; ".join(f"seed {seed}: {why}" for seed, why in failed.items())
        raise RunError(f"{len(failed)} of {len(seeds)} seeds failed: {told}")


def _show(comparison: "Comparison", store: "Store") -> None:
    from cotpipe.runs.comparisons import compare_arms, page_of
    from flows.cli.results import show_compared

    compared, page = compare_arms(store, comparison), page_of(comparison.name)
    show_compared(compared, Terminal())
    if compared.scores and store.storage.read(page):
        Terminal().print(f"page: {store.storage.location(page)}", soft_wrap=True)


def _open(name: str, store: "Store") -> None:
    """Open the page of a comparison in the browser; of a remote store, a copy of it."""
    from cotpipe.runs.comparisons import page_of

    page = store.storage.local_path(page_of(name))
    if page is None:
        page = Path(tempfile.mkdtemp(prefix="cotpipe-"), f"{name}.html")
        page.write_bytes(store.storage.read(page_of(name)) or b"")
    if not webbrowser.open(page.resolve().as_uri()):
        raise RunError("no browser could be started; open the page yourself")
