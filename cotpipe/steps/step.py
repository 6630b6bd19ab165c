"""What a step is, and how one is run: reuse what the store has, else build it in a draft and commit it."""

import ctypes
import gc
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError

from cotpipe.checkpoints import Checkpoints
from cotpipe.config import Recipe
from cotpipe.errors import RunError, UserError
from cotpipe.leases import holder, try_lease
from cotpipe.records import Record, Reference, fingerprint_of, package_versions
from cotpipe.settings import Settings
from cotpipe.store import Store


class Report(Protocol):
    """Progress of a step."""

    def __call__(self, done: int, total: int, figures: Mapping[str, float]) -> None:
        """Tell how much is done, out of how much, and figures worth seeing."""
        ...

    def note(self, text: str) -> None:
        """Tell why nothing is being done."""
        ...

    def log(self, line: str) -> None:
        """Pass on a line that a working process has written."""
        ...


class Silent:
    """A `Report` that nobody looks at."""

    def __call__(self, done: int, total: int, figures: Mapping[str, float]) -> None:
        """Tell nobody."""

    def note(self, text: str) -> None:
        """Tell nobody."""

    def log(self, line: str) -> None:
        """Tell nobody."""


@dataclass(frozen=True)
class Work:
    """What a step works with."""

    recipe: Recipe
    settings: Settings
    input: Callable[[str, str], Path]  # (kind, name of a file or folder) -> where it lies on this machine
    output: Path  # the folder to fill
    checkpoints: Checkpoints
    report: Report
    inputs: Mapping[str, Reference]  # the artifacts that it reads, by kind
    make: Callable[[Sequence["Step"], str, Callable[[int], None]], list[Path]]
    """Makes or reuses shards; takes a file's name, returns its path in each, tells which shard is there."""
    stored: Callable[[Reference, str], Path]  # like `input`, of an artifact that the recipe names


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


def reference_of(step: Step, recipe: Recipe, inputs: Mapping[str, Reference]) -> Reference:
    """The name of the artifact that a step makes of a recipe and the artifacts before it."""
    fingerprints = {kind: inputs[kind].fingerprint for kind in step.inputs}
    fingerprint = fingerprint_of(step.kind, step.version, step.fields(recipe), fingerprints)
    return Reference(kind=step.kind, fingerprint=fingerprint)


def one_after_the_other(jobs: Sequence[Callable[[], Outcome]]) -> list[Outcome]:
    """Run the jobs of a step's shards; see `StepRunner.side_by_side`."""
    return [job() for job in jobs]


@dataclass(frozen=True)
class StepRunner:
    """Runs steps on one store."""

    store: Store
    settings: Settings
    report: Report
    side_by_side: Callable[[Sequence[Callable[[], Outcome]]], list[Outcome]] = one_after_the_other

    def run(
        self,
        step: Step,
        recipe: Recipe,
        inputs: Mapping[str, Reference],
        refresh: bool = False,
        device: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> Outcome:
        """Return the step's artifact: the committed one, or a new one; with `refresh` a new one in any case.

        While another run makes the same artifact, wait for it. `device` is held while something is made, not while
        it is reused or waited for. Raises `UserError` or `RunError`; whatever earlier steps have committed stays.
        """
        plain = reference_of(step, recipe, inputs)
        reference = self.store.wanted(plain, refresh)
        try:
            while True:
                if record := self.store.find(reference):
                    outcome = Outcome(reference, reused=True, record=record)
                    break
                with try_lease(self.store.storage, str(reference), self.settings.lease_seconds) as lease:
                    if lease and not self.store.find(reference):
                        with device():
                            record = self._build(step, recipe, inputs, reference, refresh)
                        outcome = Outcome(reference, reused=False, record=record)
                        break
                if not lease:
                    self._wait_for(reference)
            if reference != self.store.latest(plain):
                self.store.put_in_place(plain, reference)
            return outcome
        except (OSError, SafetensorError) as error:  # a full disk is the latter where weights are written
            raise RunError(
                f"step {step.kind}: cannot read or write its files: {error}; make room, or set COTPIPE_STORE (and "
                "COTPIPE_CACHE, where the store is on S3) to another place, then run again: finished steps are kept"
            ) from error

    def _wait_for(self, reference: Reference) -> None:
        other = holder(self.store.storage, str(reference)) or "another run"
        self.report.note(f"waits for {other}, which makes the same")
        time.sleep(min(2.0, self.settings.lease_seconds / 10))

    def _build(
        self, step: Step, recipe: Recipe, inputs: Mapping[str, Reference], reference: Reference, refresh: bool
    ) -> Record:
        started = time.monotonic()
        checkpoints = Checkpoints(self.store.storage, reference)
        with self.store.draft(reference) as draft:
            parts: list[Reference] = []
            work = Work(
                recipe, self.settings, self._fetcher(inputs), draft.path, checkpoints, self.report, inputs,
                make=partial(self._make_shards, recipe, refresh, parts), stored=partial(self._fetch_stored, parts),
            )  # fmt: skip
            counts = step.run(work)
            record = Record(
                kind=step.kind,
                fingerprint=reference.fingerprint,
                attempt=draft.attempt,
                step_version=step.version,
                fields=step.fields(recipe),
                inputs={kind: inputs[kind].fingerprint for kind in step.inputs},
                parts=parts,
                counts=counts,
                files=[],
                versions=package_versions(),
                made_at=datetime.now(UTC).isoformat(timespec="seconds"),
                seconds=round(time.monotonic() - started, 3),
            )
            record = self.store.commit(draft, record)
        checkpoints.clear()
        _release_memory()
        return record

    def _make_shards(
        self,
        recipe: Recipe,
        refresh: bool,
        made: list[Reference],
        steps: Sequence[Step],
        name: str,
        tell: Callable[[int], None],
    ) -> list[Path]:
        def job(number: int) -> Outcome:
            outcome = self.run(steps[number], recipe, {}, refresh)
            tell(number)
            return outcome

        outcomes = self.side_by_side([partial(job, number) for number in range(len(steps))])
        made += [outcome.reference for outcome in outcomes]
        return [self.store.path(outcome.record, name) for outcome in outcomes]

    def _fetcher(self, inputs: Mapping[str, Reference]) -> Callable[[str, str], Path]:
        """Gives a step local paths of what it reads; nothing that it does not ask for is fetched."""

        def fetch(kind: str, name: str) -> Path:
            record = self.store.record(inputs[kind])
            assert record, f"{inputs[kind]} is committed before a step reads it"
            return self.store.path(record, name)

        return fetch

    def _fetch_stored(self, used: list[Reference], reference: Reference, name: str) -> Path:
        record = self.store.find(reference)
        if record is None:
            raise UserError(
                f"{reference} is not in the store {self.store.storage.address}, or it is damaged; name another one "
                "(a promoted checkpoint that is gone: cotpipe promote --undo, or cotpipe promote RUN)"
            )
        used.append(reference)
        return self.store.path(record, name)


def _release_memory() -> None:
    """Give the memory of a step's model back to the system, so that it does not lie beside the next step's process."""
    gc.collect()
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
