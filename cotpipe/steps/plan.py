"""The plan of a run: which steps are reused, which will run, and why."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from cotpipe.recipe.model import Recipe
from cotpipe.steps.curriculum import require_steps, steps_of
from cotpipe.steps.step import Step, reference_of
from cotpipe.store.artifacts import Store
from cotpipe.store.records import Record, Reference


@dataclass(frozen=True)
class PlannedStep:
    """One step of a planned run."""

    kind: str
    reference: Reference
    inputs: tuple[str, ...]
    why: str  # why it will run; empty if it is reused

    @property
    def reused(self) -> bool:
        """Whether the store has the artifact."""
        return not self.why


def name_artifacts(
    recipe: Recipe, store: Store, refresh: Collection[str] = ()
) -> dict[str, Reference]:
    """The reference of every step's artifact, by kind; no step has to run for this.

    Raises `UserError` if a step to refresh does not exist.
    """
    steps = steps_of(recipe)
    require_steps(refresh, steps)
    named: dict[str, Reference] = {}
    for kind, step in steps.items():
        plain = reference_of(step, recipe, named)
        named[kind] = store.wanted(plain, kind in refresh)
    return named


def left_to_refresh(
    recipe: Recipe, store: Store, refresh: Collection[str], begun: Mapping[str, Reference]
) -> set[str]:
    """The steps to refresh, without those that a run has refreshed before it was tried again.

    Args:
        recipe: The recipe of the run.
        store: Its store.
        refresh: The steps to refresh.
        begun: The artifacts that the run had planned at first, by kind.

    Raises the same errors as `name_artifacts`.
    """
    left = set(refresh)
    named: dict[str, Reference] = {}
    for kind, step in steps_of(recipe).items():
        plain = reference_of(step, recipe, named)
        if kind in left and store.latest(plain) == begun.get(kind):
            left.remove(kind)
        named[kind] = store.wanted(plain, kind in left)
    return left


def plan_run(recipe: Recipe, store: Store, refresh: Collection[str] = ()) -> list[PlannedStep]:
    """All steps in execution order; nothing is run, marked or hashed.

    Raises the same errors as `name_artifacts`.
    """
    steps, named = steps_of(recipe), name_artifacts(recipe, store, refresh)
    planned = []
    for kind, reference in named.items():
        if store.find(reference):
            why = ""
        elif kind in refresh:
            why = "requested with --refresh"
        else:
            why = _why(steps[kind], recipe, named, store)
        planned.append(PlannedStep(kind, reference, steps[kind].inputs, why))
    return planned


def _why(step: Step, recipe: Recipe, named: Mapping[str, Reference], store: Store) -> str:
    """How the step differs from the most similar artifact of its kind."""
    if store.record(named[step.kind]):
        return "its artifact is damaged"
    wanted = _flat(step.fields(recipe)) | {
        f"input {kind}": named[kind].fingerprint for kind in step.inputs
    }
    wanted["step version"] = step.version
    differences = [_differences(wanted, record, recipe) for record in store.records(step.kind)]
    if not differences:
        return "new: no artifact of this kind yet"
    fewest = min(differences, key=len)
    return "; ".join(fewest) or "its artifact was removed"


def _differences(wanted: Mapping[str, Any], record: Record, recipe: Recipe) -> list[str]:
    have = _flat(record.fields) | {
        f"input {kind}": fingerprint for kind, fingerprint in record.inputs.items()
    }
    have["step version"] = record.step_version
    lines = []
    for key in sorted(wanted.keys() | have.keys()):
        before, after = have.get(key), wanted.get(key)
        if before == after:
            continue
        if key.startswith("input "):
            lines.append(f"{key} changed")
        else:
            lines.append(f"{recipe.override_of(key)} {_text(before)} -> {_text(after)}")
    return lines


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings to keys such as `stage1.masks.kind`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    return flatten(json.loads(json.dumps(fields)))  # as in a record


def _text(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
