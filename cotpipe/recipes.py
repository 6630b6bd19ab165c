"""Reading a recipe: a YAML file, overrides from the command line, and errors that name the key."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cotpipe.config import Recipe
from cotpipe.errors import UserError

SHIPPED = Path(__file__).parent.parent / "deployments" / "recipes"


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe by its path, or by the name of a shipped one, with overrides such as `stage2.learning_rate=2e-6`.

    Raises `UserError` for a missing file, broken YAML, an unknown key or a value out of its range.
    """
    path = _find(name_or_path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: a recipe is a mapping of sections, such as `stage1:`")
    for override in overrides:
        _set(values, override)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{path}: {describe(error)}") from error


def with_changes(recipe: Recipe, form: Recipe) -> Recipe:
    """A recipe with those fields of a filled-in form that are not at their defaults.

    Raises `UserError` where the two do not fit together.

    >>> changed = with_changes(load_recipe("demo"), Recipe.model_validate({"stage2": {"group_size": 4}}))
    >>> changed.name, changed.stage2.group_size, changed.stage2.max_problems
    ('demo', 4, 20)
    """
    values = _overlay(recipe.model_dump(), form.model_dump(), Recipe().model_dump())
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise UserError(f"the form does not fit the recipe {recipe.name!r}: {describe(error)}") from error


def _overlay(base: dict[str, Any], form: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    values = dict(base)
    for key, value in form.items():
        default = defaults.get(key)
        if key == "source" and value != default and value["kind"] != base[key]["kind"]:
            values[key] = value  # another kind of source, as a whole
        elif isinstance(value, dict) and isinstance(values.get(key), dict) and isinstance(default, dict):
            values[key] = _overlay(values[key], value, default)
        elif value != default:
            values[key] = value
    return values


def shipped_recipes() -> list[str]:
    """The names of the recipes that come with cotpipe."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def describe(error: ValidationError) -> str:
    """The first mistakes of a recipe, each with its key."""
    lines = []
    for mistake in error.errors()[:5]:
        key = ".".join(str(part) for part in mistake["loc"]) or "recipe"
        if mistake["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key")
        else:
            value = "" if mistake["type"] in ("missing", "value_error") else f" (got {mistake['input']!r})"
            lines.append(f"{key}: {mistake['msg'].removeprefix('Value error, ')}{value}")
    return "; ".join(lines)


def _find(name_or_path: str) -> Path:
    for path in (Path(name_or_path), SHIPPED / f"{name_or_path}.yaml"):
        if path.is_file():
            return path
    raise UserError(
        f"--recipe: no file {name_or_path!r}, and no shipped recipe of that name ({', '.join(shipped_recipes())})"
    )


def _set(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UserError(f"--set {override}: write it as section.field=value, for example stage2.learning_rate=2e-6")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override}: the value is not valid YAML") from error
    *sections, field = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise UserError(f"--set {override}: {section!r} is a value, not a section")
    values[field] = value
