"""The record of a run, `runs/RUN.json`: recipe, artifacts, reused steps, timings, outcome."""

import logging
import os
import platform
import socket
import subprocess
import threading
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import psutil
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cotpipe.errors import RunError, UserError
from cotpipe.recipe.files import SHIPPED, describe, load_recipe, recipe_in, shipped_recipes
from cotpipe.recipe.model import Recipe
from cotpipe.store.lookup import READS_AT_ONCE
from cotpipe.store.records import SET_ASIDE, Reference, package_versions
from cotpipe.store.storage import Storage

logger = logging.getLogger(__name__)

FOLDER = "runs"
"""Folder of the run records in the store."""
_SECONDS_BETWEEN_BEATS = 60.0


class StepRun(BaseModel):
    """The outcome of one step in a run."""

    model_config = ConfigDict(frozen=True)

    reused: bool
    seconds: float  # in this run; near 0 if reused


class Run(BaseModel):
    """One run of the curriculum. The run, its only writer, rewrites it every minute."""

    model_config = ConfigDict(frozen=True)

    run_id: Annotated[str, Field(pattern=r"^[0-9a-z-]{1,80}$")]
    recipe: dict[str, Any]
    artifacts: dict[str, str] = {}  # fingerprint by kind, of every planned or finished step
    needs: list[Reference] = []  # what else it uses: a night's new batches, its anchor
    steps: dict[str, StepRun] = {}
    outcome: Literal["running", "completed", "failed", "interrupted"] = "running"
    error: str | None = None
    started_at: str  # UTC, ISO 8601
    finished_at: str | None = None
    host: str
    pid: int
    versions: dict[str, str]
    git_commit: str | None  # of cotpipe's source tree; `+` if it has changes

    @property
    def references(self) -> dict[str, Reference]:
        """References to its artifacts, by kind."""
        return {
            kind: Reference(kind=kind, fingerprint=value) for kind, value in self.artifacts.items()
        }

    @property
    def checkpoints(self) -> list[str]:
        """The evaluated checkpoints in order: `base`, then one per stage."""
        return checkpoints_of(self.artifacts)

    @property
    def state(self) -> str:
        """The outcome; `dead` for a run on this machine whose process is gone."""
        if (
            self.outcome == "running"
            and self.host == socket.gethostname()
            and not psutil.pid_exists(self.pid)
        ):
            return "dead"
        return self.outcome

    @property
    def seconds(self) -> float | None:
        """Duration in seconds; None until the run has ended."""
        if self.finished_at is None:
            return None
        return (
            datetime.fromisoformat(self.finished_at) - datetime.fromisoformat(self.started_at)
        ).total_seconds()


def checkpoints_of(kinds: Iterable[str]) -> list[str]:
    """The checkpoints that steps of these kinds evaluate, in order.

    >>> checkpoints_of(["evaluation-base", "stage1", "evaluation-stage1"])
    ['base', 'stage1']
    """
    prefix = "evaluation-"
    return [kind.removeprefix(prefix) for kind in kinds if kind.startswith(prefix)]


class RunLog:
    """Writes the record of the current run; a retried run continues its own record."""

    def __init__(self, storage: Storage, recipe: Recipe, suffix: str) -> None:
        now = datetime.now(UTC)
        self._storage = storage
        self._writing = threading.Lock()
        self.is_written = False
        """Whether this try has recorded anything: what it needs, or how it went."""
        earlier = _find_by_suffix(storage, suffix)
        self.begun = earlier.references if earlier else {}
        """The artifacts that the run had planned or made before it was tried again, by kind."""
        self.run = Run(
            run_id=earlier.run_id if earlier else f"{now:%Y%m%d-%H%M%S}-{suffix}",
            recipe=recipe.model_dump(mode="json"),
            artifacts=earlier.artifacts if earlier else {},
            needs=earlier.needs if earlier else [],
            steps=earlier.steps if earlier else {},
            started_at=earlier.started_at if earlier else _text(now),
            host=socket.gethostname(),
            pid=os.getpid(),
            versions=package_versions() | {"python": platform.python_version()},
            git_commit=_git_commit(),
        )

    def left(self, refresh: Iterable[str]) -> set[str]:
        """The steps to refresh that the run has not done yet, as far as its record tells."""
        return set(refresh) - self.run.steps.keys()

    def plan(self, artifacts: Iterable[Reference], recipe: Recipe | None = None) -> None:
        """Record the artifacts of the run's steps, so that `gc` keeps them.

        Args:
            artifacts: One for each step.
            recipe: The recipe of the steps, if it is another than the run began with.
        """
        changes = {"recipe": recipe.model_dump(mode="json")} if recipe else {}
        planned = {reference.kind: reference.fingerprint for reference in artifacts}
        self._write(artifacts=planned, **changes)

    def need(self, artifacts: Iterable[Reference]) -> None:
        """Record what the run uses besides the artifacts of its steps, so that `gc` keeps it."""
        self._write(needs=list(dict.fromkeys([*self.run.needs, *artifacts])))

    def step(self, reference: Reference, reused: bool, seconds: float) -> None:
        """Record the outcome of a step."""
        self._write(
            artifacts=self.run.artifacts | {reference.kind: reference.fingerprint},
            steps=self.run.steps
            | {reference.kind: StepRun(reused=reused, seconds=round(seconds, 3))},
        )

    @contextmanager
    def heartbeat(self, seconds: float = _SECONDS_BETWEEN_BEATS) -> Iterator[None]:
        """Rewrite the record, once there is one, so that `gc` knows the run to be alive."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(seconds):
                if not self.is_written:
                    continue
                try:
                    self._write()
                except RunError as error:
                    logger.warning(
                        "could not write the record of run %s: %s", self.run.run_id, error
                    )

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def finish(
        self, outcome: Literal["completed", "failed", "interrupted"], error: str | None = None
    ) -> None:
        """Record how the run ended."""
        self._write(outcome=outcome, error=error, finished_at=_text(datetime.now(UTC)))

    def _write(self, **changes: Any) -> None:
        with self._writing:
            self.is_written = True
            self.run = self.run.model_copy(update=changes)
            self._storage.replace(
                f"{FOLDER}/{self.run.run_id}.json", self.run.model_dump_json(indent=2).encode()
            )


def _find_by_suffix(storage: Storage, suffix: str) -> Run | None:
    names = [name for name in storage.sizes(FOLDER) if name.endswith(f"-{suffix}.json")]
    runs = read_runs(storage, names)
    return runs[0] if runs else None


def read_runs(storage: Storage, names: Collection[str] | None = None) -> list[Run]:
    """All runs of a store, or those in the files `names`, oldest first.

    Files that are no valid run records are skipped with a warning.
    """
    chosen = sorted(
        name
        for name in (storage.sizes(FOLDER) if names is None else names)
        if name.endswith(".json") and "/" not in name and not name.endswith(SET_ASIDE)
    )
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        texts = pool.map(lambda name: storage.read(f"{FOLDER}/{name}"), chosen)
        found = [_parse(name, text) for name, text in zip(chosen, texts, strict=True)]
    return [run for run in found if run]


def find_run(storage: Storage, name: str) -> Run:
    """Find a run by its id, a unique part of it, or `last`.

    Raises `UserError` if no run matches, or several do.
    """
    runs = read_runs(storage)
    found = runs[-1:] if name == "last" else [run for run in runs if name in run.run_id]
    found = [run for run in found if run.run_id == name] or found
    if len(found) != 1:
        known = ", ".join(run.run_id for run in (found or runs)[-5:]) or "none yet"
        raise UserError(
            f"{'several runs are' if found else 'no run is'} called {name!r}; the newest: {known}"
        )
    return found[0]


def recipe_of(run: Run) -> Recipe:
    """The recipe of a run.

    Raises `UserError` if it does not validate with this version of cotpipe.
    """
    try:
        return Recipe.model_validate(run.recipe)
    except ValidationError as error:
        raise UserError(
            f"run {run.run_id}: its recipe is not valid in this version of cotpipe: "
            f"{describe(error, run.recipe)}; run from its recipe file instead"
        ) from error


def recipe_from(start_from: str, storage: Storage, folder: Path | None = None) -> Recipe:
    """The recipe to start from: shipped, a YAML file, or of an earlier run (its id, or `last`).

    Args:
        start_from: What names it.
        storage: The storage of the store with the runs.
        folder: The only folder whose files count, beside those that are shipped.

    Raises:
        UserError: It is none of these.
    """
    if file := recipe_in([SHIPPED, *([folder] if folder else [])], start_from):
        return load_recipe(str(file))
    try:
        return recipe_of(find_run(storage, start_from))
    except UserError as error:
        raise UserError(
            f"start_from: {start_from!r} is not a shipped recipe ({', '.join(shipped_recipes())}), not "
            f"a file in the folder of recipes (COTPIPE_RECIPES: {folder or 'not set'}), and {error}"
        ) from error


def _parse(name: str, text: bytes | None) -> Run | None:
    try:
        return Run.model_validate_json(text) if text is not None else None
    except ValidationError as error:
        logger.warning(
            "skipped: %s/%s is not a valid run record (%s)",
            FOLDER,
            name,
            error.errors()[0]["msg"],
        )
        return None


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


def _git_commit() -> str | None:
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit = subprocess.check_output(
            ["git", "rev-parse", "HEAD"],  # noqa: S607
            cwd=root,
            text=True,
            stderr=subprocess.DEVNULL,
        )
        changes = subprocess.check_output(["git", "status", "--porcelain"], cwd=root, text=True)  # noqa: S607
    except (OSError, subprocess.CalledProcessError):
        return None  # git is not installed, or there is no commit yet
    return commit.strip() + ("+" if changes.strip() else "")
