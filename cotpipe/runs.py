"""The record of a run, `runs/RUN.json`: its recipe, the artifacts it used, which were reused, timings, outcome."""

import os
import platform
import socket
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import psutil
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cotpipe.config import Recipe
from cotpipe.errors import RunError, UserError
from cotpipe.recipes import describe, load_recipe, shipped_recipes
from cotpipe.records import Reference, package_versions
from cotpipe.storage import Storage

_FOLDER = "runs"


class StepRun(BaseModel):
    """What became of one step in a run."""

    model_config = ConfigDict(frozen=True)

    reused: bool
    seconds: float  # in this run: near nothing where it was reused


class Run(BaseModel):
    """One run of the curriculum; written anew after every step, by that run alone."""

    model_config = ConfigDict(frozen=True)

    run_id: Annotated[str, Field(pattern=r"^[0-9a-z-]{1,80}$")]
    recipe: dict[str, Any]
    artifacts: dict[str, str] = {}  # fingerprint by kind, of every step that is planned or done
    steps: dict[str, StepRun] = {}
    outcome: Literal["running", "completed", "failed", "interrupted"] = "running"
    error: str | None = None
    started_at: str  # UTC, ISO 8601
    finished_at: str | None = None
    host: str
    pid: int
    versions: dict[str, str]
    git_commit: str | None  # of cotpipe's own source tree; `+` where that has changes

    @property
    def references(self) -> dict[str, Reference]:
        """The names of its artifacts, by kind."""
        return {kind: Reference(kind=kind, fingerprint=value) for kind, value in self.artifacts.items()}

    @property
    def state(self) -> str:
        """The outcome; `dead` for a run of this machine whose process is gone without a word."""
        if self.outcome == "running" and self.host == socket.gethostname() and not psutil.pid_exists(self.pid):
            return "dead"
        return self.outcome

    @property
    def seconds(self) -> float | None:
        """How long it took, once it is over."""
        if self.finished_at is None:
            return None
        return (datetime.fromisoformat(self.finished_at) - datetime.fromisoformat(self.started_at)).total_seconds()


class RunLog:
    """Writes the record of the run that is under way; a run that is tried again goes on with its own record."""

    def __init__(self, storage: Storage, recipe: Recipe, suffix: str) -> None:
        now = datetime.now(UTC)
        self._storage = storage
        earlier = _find_by_suffix(storage, suffix)
        self.run = Run(
            run_id=earlier.run_id if earlier else f"{now:%Y%m%d-%H%M%S}-{suffix}",
            recipe=recipe.model_dump(mode="json"),
            steps=earlier.steps if earlier else {},
            started_at=earlier.started_at if earlier else _text(now),
            host=socket.gethostname(),
            pid=os.getpid(),
            versions=package_versions() | {"python": platform.python_version()},
            git_commit=_git_commit(),
        )

    def left(self, refresh: Iterable[str]) -> set[str]:
        """Which of these steps the run has still to do again; those it did before it was tried again are done."""
        return set(refresh) - self.run.steps.keys()

    def plan(self, artifacts: Iterable[Reference]) -> None:
        """Write down which artifacts the run needs, so that `gc` leaves them alone."""
        self._write(artifacts={reference.kind: reference.fingerprint for reference in artifacts})

    def step(self, reference: Reference, reused: bool, seconds: float) -> None:
        """Write down what became of a step."""
        self._write(
            artifacts=self.run.artifacts | {reference.kind: reference.fingerprint},
            steps=self.run.steps | {reference.kind: StepRun(reused=reused, seconds=round(seconds, 3))},
        )

    def finish(self, outcome: Literal["completed", "failed", "interrupted"], error: str | None = None) -> None:
        """Write down how the run ended."""
        self._write(outcome=outcome, error=error, finished_at=_text(datetime.now(UTC)))

    def _write(self, **changes: Any) -> None:
        self.run = self.run.model_copy(update=changes)
        self._storage.replace(f"{_FOLDER}/{self.run.run_id}.json", self.run.model_dump_json(indent=2).encode())


def _find_by_suffix(storage: Storage, suffix: str) -> Run | None:
    names = [name for name in storage.sizes(_FOLDER) if name.endswith(f"-{suffix}.json")]
    text = storage.read(f"{_FOLDER}/{names[0]}") if names else None
    return _parse(names[0], text) if text else None


def read_runs(storage: Storage) -> list[Run]:
    """All runs of a store, the oldest first."""
    names = sorted(name for name in storage.sizes(_FOLDER) if name.endswith(".json") and "/" not in name)
    with ThreadPoolExecutor() as pool:
        texts = pool.map(lambda name: storage.read(f"{_FOLDER}/{name}"), names)
        return [_parse(name, text) for name, text in zip(names, texts, strict=True) if text is not None]


def find_run(storage: Storage, name: str) -> Run:
    """A run by its id, a part of it that no other run has, or `last`.

    Raises `UserError` where there is none, or more than one.
    """
    runs = read_runs(storage)
    found = runs[-1:] if name == "last" else [run for run in runs if name in run.run_id]
    found = [run for run in found if run.run_id == name] or found
    if len(found) != 1:
        known = ", ".join(run.run_id for run in (found or runs)[-5:]) or "none yet"
        raise UserError(f"{'several runs are' if found else 'no run is'} called {name!r}; the newest: {known}")
    return found[0]


def recipe_of(run: Run) -> Recipe:
    """The recipe that a run was made with.

    Raises `UserError` where this cotpipe knows other fields than the one that made the run.
    """
    try:
        return Recipe.model_validate(run.recipe)
    except ValidationError as error:
        raise UserError(
            f"run {run.run_id}: its recipe does not fit this cotpipe: {describe(error)}; start a run of its recipe file"
        ) from error


def recipe_from(start_from: str, storage: Storage) -> Recipe:
    """The recipe to start from: a shipped one, a YAML file, or that of an earlier run (its id, or `last`).

    Raises `UserError` where it is none of these.
    """
    if start_from in shipped_recipes() or Path(start_from).is_file():
        return load_recipe(start_from)
    try:
        return recipe_of(find_run(storage, start_from))
    except UserError as error:
        raise UserError(
            f"start_from: {start_from!r} is no shipped recipe ({', '.join(shipped_recipes())}), no file on this "
            f"machine, and {error}"
        ) from error


def remove_run(storage: Storage, run: Run) -> None:
    """Forget a run."""
    storage.remove(f"{_FOLDER}/{run.run_id}.json")


def _parse(name: str, text: bytes) -> Run:
    try:
        return Run.model_validate_json(text)
    except ValueError as error:
        raise RunError(f"{_FOLDER}/{name} is not the record of a run ({str(error).splitlines()[0]})") from error


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


def _git_commit() -> str | None:
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=root, text=True, stderr=subprocess.DEVNULL)  # noqa: S607
        changes = subprocess.check_output(["git", "status", "--porcelain"], cwd=root, text=True)  # noqa: S607
    except (OSError, subprocess.CalledProcessError):
        return None  # no git here, or no commit yet
    return commit.strip() + ("+" if changes.strip() else "")
