"""The command that checks whether a recipe can run here."""

from rich.console import Console

from cotpipe.errors import RunError
from cotpipe.recipe.files import load_recipe
from cotpipe.settings import Settings
from flows.background import log_in
from flows.cli.options import RecipeOption, SetOption, StoreOption

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(
    recipe: RecipeOption = "demo",
    set_: SetOption = None,
    store: StoreOption = None,
) -> None:
    """Check versions, store, Prefect server, problems, models and memory; say how to fix each."""
    from cotpipe.runs.doctor import examine

    log_in()
    console = Console()
    failed = 0
    for finding in examine(load_recipe(recipe, set_ or []), Settings()):
        colour = _COLOURS[finding.state]
        console.print(f"[{colour}]{finding.state:<5}[/]", finding.name, highlight=False, end=": ")
        console.print(finding.text, markup=False, highlight=False, soft_wrap=True)
        failed += finding.state == "fail"
    if failed:
        raise RunError(
            f"{failed} check{'s' if failed > 1 else ''} failed; each line says how to fix it"
        )
