"""Writes the generated parts of the documentation: what the code says about itself, as tables and a picture.

python docs/reference.py            # bring the pages up to date
python docs/reference.py --check    # exit status 1 where one is not
"""

import argparse
import importlib
import inspect
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from cotpipe.recipe.model import Recipe
from cotpipe.recipe.stages import Stage
from cotpipe.section import Section
from cotpipe.settings import Settings
from cotpipe.steps.curriculum import steps_of
from cotpipe.steps.step import Step, Verb

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

_BOUNDS = {
    "minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}",
    "minItems": "at least {}", "maxItems": "at most {}", "maxLength": "at most {} characters",
    "pattern": "`{}`",
}  # fmt: skip
_TYPES = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false"}
_OWN_CODE = "[code of yours](extending.md)"


# The recipe and the settings


def recipe_reference() -> str:
    """Every section of the recipe, with a table of its fields."""
    parts = [_table_of_section(Recipe)]
    for path, section, chosen_by in _sections(Recipe, ""):
        heading = f"### {path}" + (f", {chosen_by}" if chosen_by else "")
        if section is Stage:
            heading = f"### {path}: an entry of `stages`"
        parts += [heading, _escaped(_purpose(section)), _table_of_section(section)]
    return "\n\n".join(parts)


def _sections(section: type[Section], path: str) -> Iterator[tuple[str, type[Section], str]]:
    """The sections below one, depth first: path in `--set`, class, and which choice it stands for."""
    seen: set[type[Section]] = set()
    for name, field in section.model_fields.items():
        below = list(_section_types(field.annotation))
        inner = "STAGE" if name == "stages" else f"{path}.{name}".removeprefix(".")
        for one in below:
            chosen_by = _choice(one) if len(below) > 1 else ""
            for found in [(inner, one, chosen_by), *_sections(one, inner)]:
                if found[1] not in seen:
                    seen.add(found[1])
                    yield found


def _section_types(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from _section_types(argument)


def _choice(section: type[Section]) -> str:
    """What chooses a section among others, such as `kind: sft`."""
    schema = section.model_json_schema()["properties"]
    return next(f"`{name}: {one['const']}`" for name, one in schema.items() if "const" in one)


def _table_of_section(section: type[Section]) -> str:
    rows = []
    schema = section.model_json_schema()
    for name, field in section.model_fields.items():
        told = schema["properties"][name]
        if "const" in told:
            continue  # the heading says it
        kind = _type(told, field)
        if name in section.named:
            kind = f"{kind}, or {_OWN_CODE}" if "enum" in told else _OWN_CODE
        rows.append((f"`{name}`", kind, _default(field), _bounds(told), field.description or ""))
    return _table(("field", "type", "default", "bounds", "meaning"), rows)


def settings_reference() -> str:
    """Every environment variable that cotpipe reads for itself. No value of this environment is read."""
    schema = Settings.model_json_schema()["properties"]
    rows = [
        (
            f"`COTPIPE_{name.upper()}`",
            "secret" if SecretStr in get_args(field.annotation) else _type(schema[name], field),
            _default(field),
            _bounds(schema[name]),
            field.description or "",
        )
        for name, field in Settings.model_fields.items()
    ]
    return _table(("variable", "type", "default", "bounds", "meaning"), rows)


def _type(told: Mapping[str, Any], field: FieldInfo | None = None) -> str:
    """A type in words, from its JSON schema."""
    if "enum" in told:
        return "one of " + ", ".join(f"`{choice}`" for choice in told["enum"])
    choices = told.get("anyOf") or told.get("oneOf")
    if choices:
        kinds = dict.fromkeys(_type(one) for one in choices if one.get("type") != "null")
        return " or ".join(kinds)
    if "$ref" in told:
        return "section"
    match told.get("type"):
        case "array":
            items = _type(told["items"])
            return f"list, {items}" if items.startswith("one of") else f"list of {_plural(items)}"
        case "object":
            return "mapping of names to values"
        case kind:
            return _TYPES[str(kind)]


def _plural(kind: str) -> str:
    return kind if kind.endswith("s") else f"{kind}s"


def _bounds(told: Mapping[str, Any]) -> str:
    everything = [told, *told.get("anyOf", ())]
    return ", ".join(
        text.format(one[key]) for one in everything for key, text in _BOUNDS.items() if key in one
    )


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    assert value is not PydanticUndefined
    if isinstance(value, BaseModel):
        return _section_default(value)
    if isinstance(value, tuple) and value and isinstance(value[0], Stage):
        return ", ".join(f"`{stage.name}`" for stage in value)
    if value is None:
        return "none"
    plain = to_jsonable_python(value)
    return f"`{plain if isinstance(plain, str) else json.dumps(plain)}`"


def _section_default(value: BaseModel) -> str:
    """What a section is by default, where that is not what its own fields say."""
    chosen = (
        "kind" if "const" in type(value).model_json_schema()["properties"].get("kind", {}) else ""
    )
    other = {
        name: getattr(value, name)
        for name, field in type(value).model_fields.items()
        if name == chosen or getattr(value, name) != field.get_default(call_default_factory=True)
    }
    return ", ".join(f"`{name}: {one}`" for name, one in other.items()) or "as below"


# The code


def rooms() -> str:
    """The library's rooms from the lowest on, as the import contract has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = next(
        contract["layers"]
        for contract in project["tool"]["importlinter"]["contracts"]
        if contract["layers"][-1].startswith("cotpipe.")
    )
    rows = [
        (str(number), _place(name), _purpose(importlib.import_module(name)))
        for number, layer in enumerate(reversed(layers), start=1)
        for name in layer.split(" : ")
    ]
    return _table(("layer", "room", "what is there"), rows)


def _place(module: str) -> str:
    path = module.replace(".", "/")
    return f"[`{path}/`](../{path})" if (ROOT / path).is_dir() else f"[`{path}.py`](../{path}.py)"


def _purpose(thing: Any) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join(str(inspect.getdoc(thing)).split("\n\n")[0].split())


# The picture of the pipeline

_COLOURS: dict[Verb, str] = {
    "prepare": "#e8eef7", "train": "#fde8c8", "mine": "#f3d9e8", "evaluate": "#dcefdc", "report": "#eeeeee",
}  # fmt: skip


def pipeline() -> str:
    """The steps of the published curriculum as a Mermaid flow chart, coloured by the task that runs them.

    An arrow that follows from others is left out (the lessons are behind `stage1` already, so none goes
    from them to `evaluation-stage1`), except where a stage starts.
    """
    steps = steps_of(Recipe())
    lines = ["```mermaid", "flowchart TD"]
    lines += [f'    {_id(kind)}["{kind}"]:::{step.verb}' for kind, step in steps.items()]
    for kind, step in steps.items():
        lines += [
            f"    {_id(one)} --> {_id(kind)}" for one in step.inputs if _is_direct(one, step, steps)
        ]
    lines += [
        f"    classDef {verb} fill:{colour},stroke:#555,color:#111"
        for verb, colour in _COLOURS.items()
    ]
    return "\n".join([*lines, "```"])


def _id(kind: str) -> str:
    return kind.replace("-", "_")


def _is_direct(one: str, step: Step, steps: Mapping[str, Step]) -> bool:
    return step.verb == "train" or not any(
        one in _behind(other, steps) for other in step.inputs if other != one
    )


def _behind(kind: str, steps: Mapping[str, Step]) -> set[str]:
    inputs = steps[kind].inputs
    return {*inputs}.union(*(_behind(one, steps) for one in inputs))


# The pages

BLOCKS: dict[str, dict[str, Callable[[], str]]] = {
    "recipe.md": {"fields": recipe_reference},
    "settings.md": {"variables": settings_reference},
    "architecture.md": {"rooms": rooms, "pipeline": pipeline},
}
"""The generated blocks of each page, by the names in its `<!-- begin NAME -->` marks."""


def rewritten(page: str) -> str:
    """A page's text with its generated blocks as the code has them now."""
    text = (DOCS / page).read_text(encoding="utf-8")
    for name, write in BLOCKS[page].items():
        begin, end = f"<!-- begin {name}: written by docs/reference.py -->", f"<!-- end {name} -->"
        found = re.search(f"{re.escape(begin)}\n.*?{re.escape(end)}", text, re.DOTALL)
        assert found, f"docs/{page} has the marks {begin} and {end}"
        text = f"{text[: found.start()]}{begin}\n\n{write()}\n\n{end}{text[found.end() :]}"
    return text


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([_escaped(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(text: str) -> str:
    """As Markdown takes it in a cell: `|` parts cells there, `<` opens a tag, a line has an end."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", "\\n")


def main() -> None:
    """Write the pages, or say which are stale."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args().check
    stale = [
        page for page in BLOCKS if rewritten(page) != (DOCS / page).read_text(encoding="utf-8")
    ]
    if not check:
        for page in stale:
            (DOCS / page).write_text(rewritten(page), encoding="utf-8")
    for page in stale:
        sys.stdout.write(f"docs/{page} {'is stale: run make docs' if check else 'is written'}\n")
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    main()
