"""The command that checks whether a recipe can run here."""

from cotpipe.errors import RunError
from cotpipe.recipe.files import load_recipe
from cotpipe.settings import Settings
from flows.background import log_in
from flows.cli.options import RecipeOption, SetOption, StoreOption
from flows.cli.terminal import Terminal

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(
    recipe: RecipeOption = "demo",
    set_: SetOption = None,
    store: StoreOption = None,
) -> None:
    """Check versions, store, Prefect server, problems, models and memory; say how to fix each."""
    from cotpipe.runs.doctor import examine

    log_in()
    console = Terminal()
    failed = 0
    for finding in examine(load_recipe(recipe, set_ or []), Settings()):
        console.print(f"{finding.state:<5}", style=_COLOURS[finding.state], end=" ")
        console.print(f"{finding.name}: {finding.text}", soft_wrap=True)
        failed += finding.state == "fail"
    if failed:
        raise RunError(
            f"{failed} check{'s' if failed > 1 else ''} failed; each line says how to fix it"
        )
