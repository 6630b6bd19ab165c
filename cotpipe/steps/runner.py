"""Running a step: reuse its artifact from the store, or make it in a draft and commit it."""

import ctypes
import gc
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError

from cotpipe.errors import RunError
from cotpipe.progress import Progress
from cotpipe.recipe.model import Recipe
from cotpipe.settings import Settings
from cotpipe.steps.step import Step, Work, reference_of
from cotpipe.store.artifacts import Draft, Store
from cotpipe.store.leases import Contender, HeldLease, holder
from cotpipe.store.lookup import READS_AT_ONCE
from cotpipe.store.records import SHARDS, Record, Reference, package_versions
from cotpipe.store.training_states import TrainingStates


@dataclass(frozen=True)
class Outcome:
    """The outcome of a step."""

    reference: Reference
    reused: bool
    record: Record


class StepResult(BaseModel):
    """The part of an outcome that tasks pass on: references, not tables."""

    model_config = ConfigDict(frozen=True)

    reference: Reference
    reused: bool
    counts: dict[str, int]  # as reported by the step, such as rows kept and dropped


@dataclass(frozen=True)
class Job:
    """One of a step's shards, to make or reuse: here, by a call, or elsewhere (see `generate.ShardStep`)."""

    runner: "StepRunner"
    step: Step
    recipe: Recipe
    shard_of: Reference | None  # the artifact that is being refreshed
    done: Callable[[], None]

    def __call__(self) -> Outcome:
        """Make or reuse it here; raises as `StepRunner.run` does."""
        outcome = self.runner.run(self.step, self.recipe, {}, shard_of=self.shard_of)
        self.done()
        return outcome

    def is_there(self) -> bool:
        """Whether the store has it, so that a call reuses it."""
        return self.runner.has(self.step, self.recipe, self.shard_of)


def one_after_the_other(jobs: Sequence[Job]) -> list[Outcome]:
    """Run the jobs of a step's shards sequentially; the default of `StepRunner.side_by_side`."""
    return [job() for job in jobs]


@dataclass(frozen=True)
class StepRunner:
    """Runs steps against one store."""

    store: Store
    settings: Settings
    progress: Progress
    side_by_side: Callable[[Sequence[Job]], list[Outcome]] = one_after_the_other

    def run(
        self,
        step: Step,
        recipe: Recipe,
        inputs: Mapping[str, Reference],
        refresh: bool = False,
        device: Callable[[], AbstractContextManager[object]] = nullcontext,
        shard_of: Reference | None = None,
    ) -> Outcome:
        """Reuse the step's artifact or make it; waits while another run is making it.

        Idempotent: a committed artifact is never made twice. Raises `UserError` or `RunError`; the
        artifacts of earlier steps stay committed.

        Args:
            step: The step to run.
            recipe: The recipe of the run.
            inputs: The artifacts that the step reads, by kind.
            refresh: Make a new artifact even if one is committed.
            device: Held while the artifact is made, but not while it is reused or waited for.
            shard_of: The artifact that is being refreshed, if the step is one of its shards.
        """
        plain = reference_of(step, recipe, inputs)
        reference = self._named(plain, refresh, shard_of)
        contender = Contender(self.store.storage, str(reference), self.settings.lease_seconds)
        try:
            while True:
                if record := self.store.check(reference):
                    outcome = Outcome(reference, reused=True, record=record)
                    break
                with contender.try_lease() as lease:
                    if lease and not self.store.check(reference):
                        with device():
                            record = self._make(step, recipe, inputs, reference, refresh, lease)
                        outcome = Outcome(reference, reused=False, record=record)
                        break
                if not lease:
                    self._wait_for(reference)
            if reference != self.store.latest(plain):
                self.store.put_in_place(plain, reference)
            return outcome
        except (OSError, SafetensorError) as error:  # the latter if the disk fills up with weights
            raise RunError(
                f"step {step.kind}: cannot read or write its files: {error}; free disk space, or set "
                "COTPIPE_STORE (for a store on S3 also COTPIPE_CACHE) to another location, then run "
                "again: finished steps are kept"
            ) from error

    def has(self, step: Step, recipe: Recipe, shard_of: Reference | None) -> bool:
        """Whether the store has a shard; see `run`."""
        reference = self._named(reference_of(step, recipe, {}), False, shard_of)
        return self.store.check(reference) is not None

    def _wait_for(self, reference: Reference) -> None:
        other = holder(self.store.storage, str(reference)) or "another run"
        self.progress.note(f"waiting for {other}, which is making the same artifact")
        time.sleep(min(2.0, self.settings.lease_seconds / 10))

    def _make(
        self,
        step: Step,
        recipe: Recipe,
        inputs: Mapping[str, Reference],
        reference: Reference,
        refresh: bool,
        lease: HeldLease,
    ) -> Record:
        started = time.monotonic()
        self.store.note_needs(reference, inputs.values())
        with self.store.draft(reference) as draft:
            work = Work(
                recipe=recipe,
                settings=self.settings,
                store=self.store,
                reference=reference,
                inputs=inputs,
                output=draft.path,
                training_states=TrainingStates(self.store.storage, reference),
                progress=_WhileHeld(self.progress, lease),
                run_all=partial(self._run_all, recipe, reference if refresh else None, reference),
            )
            with _interruptible():
                counts = step.run(work)
            seconds = time.monotonic() - started
            lease.confirm()
            record = self.store.commit(
                draft, _describe(step, work, draft, reference, counts, seconds)
            )
        work.training_states.clear()
        if step.kind != SHARDS:  # they share a model, which the step itself gives back
            _release_memory()
        return record

    def _named(self, plain: Reference, refresh: bool, shard_of: Reference | None) -> Reference:
        """The artifact that counts for a plain name; a refreshed artifact has shards of its own."""
        return self.store.within(plain, shard_of) if shard_of else self.store.wanted(plain, refresh)

    def _run_all(
        self,
        recipe: Recipe,
        refreshed: Reference | None,
        whole: Reference,
        steps: Sequence[Step],
        done: Callable[[int], None],
    ) -> list[Record]:
        with ThreadPoolExecutor(READS_AT_ONCE) as pool:
            named = [reference_of(step, recipe, {}) for step in steps]
            shards = list(pool.map(lambda one: self._named(one, False, refreshed), named))
        self.store.note_needs(whole, shards)

        jobs = [
            Job(self, step, recipe, refreshed, partial(done, index))
            for index, step in enumerate(steps)
        ]
        outcomes = self.side_by_side(jobs)
        return [outcome.record for outcome in outcomes]


@dataclass(frozen=True)
class _WhileHeld:
    """The `Progress` of a step, which ends it (`TransientError`) once its lease is lost."""

    progress: Progress
    lease: HeldLease

    def __call__(self, done: int, total: int, figures: Mapping[str, float] = {}) -> None:
        self.lease.require()
        self.progress(done, total, figures)

    def note(self, text: str) -> None:
        self.progress.note(text)

    def log(self, line: str) -> None:
        self.progress.log(line)


def _describe(
    step: Step,
    work: Work,
    draft: Draft,
    reference: Reference,
    counts: dict[str, int],
    seconds: float,
) -> Record:
    """The record of a step's artifact, without the files, which the store adds."""
    return Record(
        kind=step.kind,
        fingerprint=reference.fingerprint,
        attempt=draft.attempt,
        step_version=step.version,
        fields=step.fields(work.recipe),
        inputs={kind: work.inputs[kind].fingerprint for kind in step.inputs},
        parts=work.parts,
        counts=counts,
        files=[],
        versions=package_versions(),
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 3),
    )


def _release_memory() -> None:
    """Return the memory of a step's model to the system, so that the next step can use it."""
    gc.collect()
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C in a query is a Ctrl-C: DuckDB takes the signal, and raises an error of its own in its place."""
    try:
        yield
    except RuntimeError as error:
        if str(error) == "Query interrupted":
            raise KeyboardInterrupt from error
        raise
