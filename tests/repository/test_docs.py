"""What the documentation says is there: links, headings, command lines, shipped recipes."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.main import get_command

from cotpipe.recipe.files import load_recipe, shipped_recipes
from flows.cli.main import app
from flows.cli.options import SetOption
from tests.helpers.pages import PAGES, arguments_of, command_lines, tokens
from tests.helpers.repository import ROOT

COMMANDS: Any = get_command(app)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    found: dict[str, int] = {}
    everything = list(tokens(page))
    for token, inner in itertools.pairwise(everything):
        if token.type == "heading_open":
            words = "".join(child.content for child in inner.children or ())
            anchor = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            found[anchor] = found.get(anchor, -1) + 1
    return {
        f"{anchor}-{number}" if number else anchor
        for anchor, last in found.items()
        for number in range(last + 1)
    }


def targets(page: Path) -> Iterator[str]:
    for token in tokens(page):
        target = token.attrGet("src" if token.type == "image" else "href")
        if target and not re.match(r"[a-z]+:", str(target)):
            yield str(target)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_local_link_leads_somewhere(page):
    for target in targets(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert file.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(file), f"{target}: {sorted(anchors(file))}"


def complaint(arguments: list[str], complete: bool = True) -> str | None:
    """What the command's own parser has against the arguments; nothing is run."""
    try:
        _, rest, _ = COMMANDS.make_parser(COMMANDS.context_class(COMMANDS)).parse_args(
            list(arguments)
        )
        if not rest:
            return None
        name, *rest = rest
        if name not in COMMANDS.commands:
            return f"no command {name}"
        command = COMMANDS.commands[name]
        values, rest, _ = command.make_parser(command.context_class(command)).parse_args(rest)
    except Exception as error:  # noqa: BLE001 - typer brings a click of its own, whose errors have no public name
        return str(error) or type(error).__name__
    if rest:
        return f"unexpected argument {rest[0]}"
    missing = [one.name for one in command.params if one.required and not values.get(one.name)]
    return f"missing: {missing[0]}" if complete and missing else None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cotpipe run --recipe demo | tee log", None),
        ("A=b .venv/bin/cotpipe rerun last --from stage2  # again", None),
        ("cotpipe walk", "no command walk"),
        ("cotpipe run --recipy demo", "--recipy"),
        ("cotpipe run --recipe", "requires an argument"),
        ("cotpipe --quick run", "--quick"),
        ("cotpipe verify everything", "unexpected argument everything"),
        ("cotpipe compare", "missing"),
    ],
)
def test_the_parser_tells_right_from_wrong(line, expected):
    found = complaint(arguments_of(line) or [])
    assert (found is None) if expected is None else (expected in str(found))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_line_is_one_that_the_command_accepts(page):
    for line, complete in command_lines(page):
        arguments = arguments_of(line)
        if arguments is None or "..." in arguments:
            continue
        assert complaint(arguments, complete) is None, line


def test_the_documentation_has_command_lines():
    found = [line for page in PAGES for line, _ in command_lines(page) if arguments_of(line)]
    assert len(found) > 10


def test_every_override_that_is_shown_fits_its_recipe():
    lines = [line for page in PAGES for line, _ in command_lines(page) if arguments_of(line)]
    _, option = get_args(SetOption)
    shown = [line for line in (*lines, option.help) if "--set " in line and "KEY=" not in line]
    assert len(shown) > 5
    for line in shown:
        recipe = re.search(r"--recipe (\S+)", line)
        if recipe is None or recipe[1] in shipped_recipes():
            overrides = re.findall(r"--set ([^\s;]+)", line)
            load_recipe(recipe[1] if recipe else "demo", overrides)
