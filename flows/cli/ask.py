"""The command that puts a question to one or more models."""

from typing import Annotated

import typer
from rich.table import Table

from cotpipe.errors import UserError
from cotpipe.recipe.files import load_recipe
from cotpipe.settings import Settings
from flows.cli.evaluate import MODELS
from flows.cli.options import DebugOption, RecipeOption, SetOption, StoreOption
from flows.cli.terminal import Terminal, styled


def ask(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=f"The model: {MODELS}.")],
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="The question.")],
    also: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL2", help="Ask this model, too; can be repeated."),
    ] = None,
    recipe: RecipeOption = "demo",
    set_: SetOption = None,
    store: StoreOption = None,
    debug: DebugOption = False,
) -> None:
    """Ask a model a question, as an evaluation of the recipe would, and watch it answer."""
    if not question.strip():
        raise UserError("ask: the question is empty")
    chosen = load_recipe(recipe, set_ or [])
    chosen.load_own_code()
    from cotpipe.runs.asking import asker

    settings = Settings()
    asked = {name: asker(name, settings, chosen) for name in (model, *(also or []))}
    console, table = Terminal(), Table("model", "answer")
    for name, answer in asked.items():
        if len(asked) > 1:
            console.print(name, style="bold", soft_wrap=True)
        said = answer(question, lambda piece: console.print(piece, end="", soft_wrap=True))
        console.print("" if said.text.endswith("\n") else "\n", end="")
        found = chosen.answers.answer_in(said.text)
        told = "no answer" if found is None else f"answer: {found}"
        cut = ", cut off at evaluation.max_new_tokens" if said.truncated else ""
        console.print(styled((told, "yellow" if found is None else "green"), cut))
        table.add_row(name, found or "-")
    if len(asked) > 1:
        console.print(table)
