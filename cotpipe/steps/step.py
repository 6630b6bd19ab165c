"""What a step is, and how one is run: reuse what the store has, else build it in a draft and commit it."""

import ctypes
import gc
import importlib.metadata
import logging
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cotpipe.config import Recipe
from cotpipe.errors import RunError
from cotpipe.settings import Settings
from cotpipe.store import Record, Reference, Store, fingerprint_of

logger = logging.getLogger(__name__)

Report = Callable[[int, int, Mapping[str, float]], None]
"""Progress of a step: how much is done, out of how much, and figures worth seeing."""

_VERSIONED = ("cotpipe", "torch", "transformers", "trl", "peft", "datasets", "duckdb", "pyarrow")


@dataclass(frozen=True)
class Work:
    """What a step works with."""

    recipe: Recipe
    settings: Settings
    inputs: Mapping[str, Path]  # folders of the input artifacts, by kind
    output: Path  # the folder to fill
    report: Report


@dataclass(frozen=True)
class Step:
    """One arrow of the pipeline: reads artifacts and recipe fields, writes one artifact of its kind."""

    kind: str
    version: int  # raised whenever the code gives another content for the same inputs
    inputs: tuple[str, ...]  # kinds of the artifacts that it reads
    fields: Callable[[Recipe], dict[str, Any]]  # everything in the recipe that can change its content
    run: Callable[[Work], dict[str, int]]  # returns counts of rows kept and dropped


@dataclass(frozen=True)
class Outcome:
    """What became of a step."""

    reference: Reference
    reused: bool
    record: Record


def run_step(
    step: Step, recipe: Recipe, inputs: Mapping[str, Reference], store: Store, settings: Settings, report: Report
) -> Outcome:
    """Return the step's artifact: the committed one, or a new one.

    Raises `UserError` or `RunError`; whatever earlier steps have committed stays.
    """
    fields = step.fields(recipe)
    fingerprints = {kind: inputs[kind].fingerprint for kind in step.inputs}
    reference = Reference(kind=step.kind, fingerprint=fingerprint_of(step.kind, step.version, fields, fingerprints))
    if record := store.find(reference):
        return Outcome(reference, reused=True, record=record)
    started = time.monotonic()
    try:
        with store.draft() as draft:
            folders = {kind: store.folder(inputs[kind]) for kind in step.inputs}
            counts = step.run(Work(recipe, settings, folders, draft, report))
            record = Record(
                kind=step.kind,
                fingerprint=reference.fingerprint,
                step_version=step.version,
                fields=fields,
                inputs=fingerprints,
                counts=counts,
                files=[],
                versions={name: importlib.metadata.version(name) for name in _VERSIONED},
                seconds=round(time.monotonic() - started, 3),
            )
            record = store.commit(draft, record)
    except OSError as error:
        raise RunError(
            f"step {step.kind}: cannot write to the store {store.root}: {error}; "
            "make room or set COTPIPE_STORE to another folder, then run again: finished steps are kept"
        ) from error
    _release_memory()
    return Outcome(reference, reused=False, record=record)


def _release_memory() -> None:
    """Give the memory of a step's model back to the system, so that it does not lie beside the next step's process."""
    gc.collect()
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
