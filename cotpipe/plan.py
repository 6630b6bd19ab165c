"""What a run would do: which steps are reused, which are to run, and why."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from cotpipe.config import Recipe
from cotpipe.curriculum import STEPS
from cotpipe.errors import UserError
from cotpipe.records import Record, Reference
from cotpipe.steps.step import Step, reference_of
from cotpipe.store import Store


@dataclass(frozen=True)
class PlannedStep:
    """One step of a run to come."""

    kind: str
    reference: Reference
    reused: bool
    why: str  # why it is to run; empty where it is reused


def name_artifacts(recipe: Recipe, store: Store, refresh: Collection[str] = ()) -> dict[str, Reference]:
    """The artifact of every step, by its kind, known before any step is run.

    Raises `UserError` for a step to refresh that does not exist.
    """
    if unknown := [kind for kind in refresh if kind not in STEPS]:
        raise UserError(f"no step is called {unknown[0]!r}; the steps are: {', '.join(STEPS)}")
    named: dict[str, Reference] = {}
    for kind, step in STEPS.items():
        plain = reference_of(step, recipe, named)
        named[kind] = store.wanted(plain, kind in refresh)
    return named


def plan_run(recipe: Recipe, store: Store, refresh: Collection[str] = ()) -> list[PlannedStep]:
    """Every step in its order; nothing is run. Raises what `name_artifacts` raises."""
    named = name_artifacts(recipe, store, refresh)
    planned = []
    for kind, reference in named.items():
        if store.find(reference):
            why = ""
        elif kind in refresh:
            why = "asked for by --refresh"
        else:
            why = _why(STEPS[kind], STEPS[kind].fields(recipe), named, store, reference)
        planned.append(PlannedStep(kind, reference, reused=not why, why=why))
    return planned


def _why(
    step: Step, fields: Mapping[str, Any], named: Mapping[str, Reference], store: Store, reference: Reference
) -> str:
    """What tells the step from the most similar artifact of its kind."""
    if store.record(reference):
        return "its artifact is damaged"
    wanted = _flat(fields) | {f"input {kind}": named[kind].fingerprint for kind in step.inputs}
    wanted["step version"] = step.version
    differences = [_differences(wanted, record) for record in store.records(step.kind)]
    if not differences:
        return "new: there is none yet"
    fewest = min(differences, key=len)
    return "; ".join(fewest) or "its artifact was removed"


def _differences(wanted: Mapping[str, Any], record: Record) -> list[str]:
    have = _flat(record.fields) | {f"input {kind}": fingerprint for kind, fingerprint in record.inputs.items()}
    have["step version"] = record.step_version
    lines = []
    for key in sorted(wanted.keys() | have.keys()):
        if wanted.get(key) != have.get(key):
            is_input = key.startswith("input ")
            lines.append(f"{key} changed" if is_input else f"{key} {_text(have.get(key))} -> {_text(wanted.get(key))}")
    return lines


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with keys such as `stage1.masks.kind`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    return flatten(json.loads(json.dumps(fields)))  # as a record holds them


def _text(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
