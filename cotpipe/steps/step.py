"""The definition of a step, and what it has access to while it runs (see `runner`)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cotpipe.errors import UserError
from cotpipe.progress import Progress
from cotpipe.recipe.model import Recipe
from cotpipe.settings import Settings
from cotpipe.store.artifacts import Store
from cotpipe.store.records import Record, Reference, fingerprint_of
from cotpipe.store.training_states import TrainingStates

Verb = Literal["prepare", "train", "mine", "evaluate", "report"]
"""The kind of work that a step does; selects the task that runs it."""


@dataclass(frozen=True)
class Work:
    """Everything that a step has access to while it makes its artifact."""

    recipe: Recipe
    settings: Settings
    store: Store
    reference: Reference  # the artifact to make
    inputs: Mapping[str, Reference]  # the artifacts to read, by kind
    output: Path  # the directory to write to
    training_states: TrainingStates
    progress: Progress
    run_all: Callable[[Sequence["Step"], Callable[[int], None]], list[Record]]
    """Makes or reuses the artifacts of several steps; calls back with the index of each."""
    parts: list[Reference] = field(default_factory=list)
    """Further artifacts used, for the record: shards, and artifacts that the recipe refers to."""

    def input(self, kind: str, name: str) -> Path:
        """The local path of a file or directory of an input; fetches only that.

        Raises `RunError` if the input was removed meanwhile, or is damaged.
        """
        return self.store.path(self.store.require(self.inputs[kind]), name)

    def stored(self, reference: Reference, name: str) -> Path:
        """Like `input`, for an artifact that the recipe refers to; it is added to `parts`.

        Raises `UserError` if the store does not have it.
        """
        record = self.store.check(reference)
        if record is None:
            raise UserError(
                f"{reference} is not in the store {self.store.storage.address}, or is damaged; choose "
                "another (if it was promoted: cotpipe promote --undo, or cotpipe promote RUN)"
            )
        self.parts.append(reference)
        return self.store.path(record, name)

    def shards(
        self, steps: Sequence["Step"], name: str, done: Callable[[int], None]
    ) -> Iterator[Path]:
        """Make or reuse shards, and add them to `parts`; then yield local paths of their files.

        Fetches a file when it is its turn; read it before the next, for it may be evicted then.
        Calls `done`, from any thread, with the index of each finished shard.
        """
        records = self.run_all(steps, done)
        self.parts.extend(record.reference for record in records)
        for record in records:
            try:
                yield self.store.path(record, name)
            finally:
                self.store.release(record)


def _no_gpus(recipe: Recipe, settings: Settings) -> int:
    return 0


@dataclass(frozen=True)
class Step:
    """A step of the pipeline: reads artifacts and recipe fields, writes one artifact."""

    kind: str
    version: int  # bumped whenever the code makes different content from the same inputs
    inputs: tuple[str, ...]  # kinds of the artifacts to read
    fields: Callable[[Recipe], dict[str, Any]]
    """All recipe fields that can change the content; part of the fingerprint."""
    run: Callable[[Work], dict[str, int]]
    """Fills `work.output`; returns counts, such as rows kept and dropped."""
    verb: Verb = "prepare"
    gpus: Callable[[Recipe, Settings], int] = _no_gpus
    """Number of GPUs: 0 for steps that only read, count, or query a server."""
    shows: str | None = None
    """File or directory of the artifact to link in the Prefect UI."""


def reference_of(step: Step, recipe: Recipe, inputs: Mapping[str, Reference]) -> Reference:
    """The reference of the artifact that a step makes from a recipe and its inputs."""
    fingerprints = {kind: inputs[kind].fingerprint for kind in step.inputs}
    fingerprint = fingerprint_of(step.kind, step.version, step.fields(recipe), fingerprints)
    return Reference(kind=step.kind, fingerprint=fingerprint)
