"""Reading a recipe: YAML, command-line overrides, and errors that name the key."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cotpipe.errors import UserError
from cotpipe.recipe.model import Recipe
from cotpipe.recipe.stages import PUBLISHED_STAGES

_IN_STAGES = "; a stage is an entry of the list `stages`, with name, examples and trainer"
_CHOSEN_BY = {"source": "kind", "examples": "task", "trainer": "kind"}
"""Sections with several kinds, and the field that selects the kind."""

_LONGEST_QUOTE = 60

SHIPPED = Path(__file__).parents[2] / "deployments" / "recipes"


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe by path, or a shipped recipe by name.

    Overrides look like `stage2.trainer.learning_rate=2e-6`.

    Raises `UserError` for a missing file, invalid YAML, an unknown key, or an out-of-range value.
    """
    path = recipe_path(name_or_path)
    values = read_mapping(path, "a recipe is a mapping of sections, such as `problems:`")
    change(values, override_values(overrides), "--set ")
    return validated(values, str(path))


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """Read a YAML file; `what` says that it is a mapping, for a file that is none.

    Raises `UserError` for a file that is not readable as such.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        # Neither here nor in a traceback the error's own text, which quotes the file: it could be any.
        raise UserError(f"{path}{_place_of(error)}: not valid YAML") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: {what}")
    found: dict[str, Any] = _without_aliases(values)
    return found


def _without_aliases(value: Any) -> Any:
    """A copy in which what YAML's anchors made one is several: a change of one changes no other."""
    if isinstance(value, dict):
        return {key: _without_aliases(one) for key, one in value.items()}
    return [_without_aliases(one) for one in value] if isinstance(value, list) else value


def change(values: dict[str, Any], changes: Mapping[str, Any], told: str) -> None:
    """Change the values of a recipe, as read from YAML, in place.

    Args:
        values: The recipe.
        changes: New values by field, such as `stage2.trainer.learning_rate`.
        told: What comes before the field in an error.

    Raises `UserError` for a field that cannot be there.
    """
    for key in sorted(changes, key=_selects_a_kind, reverse=True):
        _set(values, key, changes[key], told)


def validated(values: Mapping[str, Any], told: str) -> Recipe:
    """Validate the values of a recipe; `told` comes before the message of the `UserError`."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        # Without its cause, whose text quotes the file.
        raise UserError(f"{told}: {describe(error, values)}") from None


def with_changes(recipe: Recipe, form: Recipe) -> Recipe:
    """The recipe, overridden by every form field that is not at its default.

    Raises `UserError` if the two are incompatible.

    >>> form = Recipe.model_validate({"name": "mine", "evaluation": {"max_problems": 9}})
    >>> changed = with_changes(load_recipe("demo"), form)
    >>> changed.name, changed.evaluation.max_problems, changed.evaluation.max_new_tokens
    ('mine', 9, 192)
    """
    defaults = Recipe()
    values = _overlay(recipe.model_dump(), form.model_dump(), defaults.model_dump())
    values["stages"] = _overlay_stages(recipe, form, defaults)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        told = describe(error, values)
        raise UserError(f"the form does not fit the recipe {recipe.name!r}: {told}") from error


def _overlay(
    base: dict[str, Any], form: dict[str, Any], defaults: dict[str, Any]
) -> dict[str, Any]:
    values = dict(base)
    for key, value in form.items():
        default = defaults.get(key)
        if value == default:
            continue
        choice = _CHOSEN_BY.get(key)
        earlier = values.get(key)
        if (
            isinstance(earlier, dict)
            and isinstance(value, dict)
            and isinstance(default, dict)
            and (choice is None or value[choice] == earlier[choice])
        ):
            values[key] = _overlay(earlier, value, default)
        else:
            values[key] = value  # another kind of section: replace it whole
    return values


def _overlay_stages(recipe: Recipe, form: Recipe, defaults: Recipe) -> list[dict[str, Any]]:
    """The recipe's stages, overridden by the form's stages of the same names.

    If the form does not have exactly the default stages, its stages replace the recipe's.
    """
    before = {stage.name: stage for stage in defaults.stages}
    filled_in = {stage.name: stage for stage in form.stages}
    if filled_in.keys() != before.keys():
        return [stage.model_dump() for stage in form.stages]
    changed = {name for name, stage in filled_in.items() if stage != before[name]}
    if unknown := changed - {stage.name for stage in recipe.stages}:
        raise UserError(
            f"the form changes the stage {min(unknown)!r}, which the recipe {recipe.name!r} does not "
            "have; leave that stage at its defaults"
        )
    return [
        _overlay(
            stage.model_dump(),
            filled_in[stage.name].model_dump(),
            before[stage.name].model_dump(),
        )
        if stage.name in changed
        else stage.model_dump()
        for stage in recipe.stages
    ]


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path lies in a folder; links and `..` that lead out of it count as outside."""
    return path.resolve().is_relative_to(folder.resolve())


def recipe_in(folders: Iterable[Path], name: str) -> Path | None:
    """The recipe file that `name` means in one of the folders; None if it lies in none of them."""
    for folder in folders:
        for path in (folder / name, folder / f"{name}.yaml"):
            if is_inside(path, folder) and path.suffix in (".yaml", ".yml") and path.is_file():
                return path
    return None


def shipped_recipes() -> list[str]:
    """The names of the recipes that come with cotpipe."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def describe(error: ValidationError, values: Mapping[str, Any] | None = None) -> str:
    """Format the first validation errors on one line, each with its key.

    `values` is the recipe as read; it provides the names of the stages.
    """
    lines = []
    mistakes = error.errors()
    if len(mistakes) > 1:  # a list whose entries are wrong is called too short as well
        mistakes = [one for one in mistakes if one["type"] != "too_short"]
    for mistake in mistakes[:5]:
        key = _key_of(mistake["loc"], values or {})
        message = mistake["msg"].removeprefix("Value error, ")
        if mistake["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key" + (_IN_STAGES if _is_stage(key) else ""))
        elif not key:
            lines.append(message)
        else:
            quoted = mistake["type"] not in ("missing", "value_error")
            lines.append(f"{key}: {message}" + (_shown(mistake["input"]) if quoted else ""))
    return "; ".join(lines)


def _shown(value: Any) -> str:
    """A wrong value, if it is short; a long one could be anything."""
    text = repr(value)
    return f" (got {text if len(text) <= _LONGEST_QUOTE else type(value).__name__})"


def _is_stage(key: str) -> bool:
    return key in {stage.name for stage in PUBLISHED_STAGES}


def _key_of(place: Sequence[int | str], values: Mapping[str, Any]) -> str:
    """The key as `--set` expects it: stages by name, and without the kind of a section."""
    parts = list(place)
    if len(parts) > 1 and parts[0] == "stages":
        entries = dict(enumerate(values.get("stages") or []))
        stage = entries.get(int(parts[1]), {})
        name = stage.get("name") if isinstance(stage, dict) else None
        parts[:2] = [name if isinstance(name, str) else f"stages[{parts[1]}]"]
    kept = [
        part for before, part in zip(["", *parts], parts, strict=False) if before not in _CHOSEN_BY
    ]
    return ".".join(str(part) for part in kept)


def recipe_path(name_or_path: str, folder: Path = Path()) -> Path:
    """The file of a recipe: a path, perhaps relative to a folder, or the name of a shipped one.

    Raises `UserError` if there is none.
    """
    for path in (folder / name_or_path, SHIPPED / f"{name_or_path}.yaml"):
        if path.is_file():
            return path
    raise UserError(
        f"recipe: no file {name_or_path!r}, and no shipped recipe of that name ({', '.join(shipped_recipes())})"
    )


def _place_of(error: yaml.YAMLError | UnicodeDecodeError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""


def _selects_a_kind(key: str) -> bool:
    """Whether a change replaces a section by one of another kind; it goes before its fields."""
    *sections, field = key.split(".")
    return bool(sections) and field == _CHOSEN_BY.get(sections[-1])


def override_values(overrides: Iterable[str]) -> dict[str, Any]:
    """The values of overrides such as `stage2.trainer.learning_rate=2e-6`, by field.

    Raises `UserError` for one that is not written like this.
    """
    return dict(map(_override, overrides))


def _override(override: str) -> tuple[str, Any]:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UserError(
            f"--set {override}: write it as section.field=value, for example "
            "stage2.trainer.learning_rate=2e-6"
        )
    try:
        return key, yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override}: the value is not valid YAML") from error


def _set(values: dict[str, Any], key: str, value: Any, told: str) -> None:
    *sections, field = key.split(".")
    if sections and sections[0] not in Recipe.model_fields:
        values = _stage_named(sections.pop(0), values, f"{told}{key}")
    section = ""
    for section in sections:
        if values.get(section) is None:  # absent, or left empty in the file
            values[section] = {}
        values = values[section]
        if not isinstance(values, dict):
            raise UserError(f"{told}{key}: {section!r} is a value, not a section")
    if field == _CHOSEN_BY.get(section) and value != values.get(field, value):
        values.clear()  # the other fields belong to the previous kind
    values[field] = value


def _stage_named(name: str, values: dict[str, Any], told: str) -> dict[str, Any]:
    """The stage with this name; `values` get the published stages if they list none."""
    published = [stage.model_dump(mode="json") for stage in PUBLISHED_STAGES]
    stages = values["stages"] = values.get("stages") or published
    if not isinstance(stages, list):
        raise UserError(f"{told}: stages is not a list of stages")
    names = [stage.get("name") for stage in stages if isinstance(stage, dict)]
    if name not in names:
        sections = [*Recipe.model_fields, *map(str, names)]
        raise UserError(
            f"{told}: {name}: unknown key; the sections and stages are: {', '.join(sections)}"
        )
    found: dict[str, Any] = stages[names.index(name)]
    return found
