"""Preflight checks: whether a recipe can run here, and how to fix what fails."""

import base64
import functools
import importlib.metadata
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import psutil
from packaging.requirements import Requirement

from cotpipe.engines.cluster import require_cluster
from cotpipe.errors import RunError, UserError
from cotpipe.extensions import is_own
from cotpipe.hub import require_on_hub
from cotpipe.recipe.model import Recipe, Student
from cotpipe.recipe.stages import Stage
from cotpipe.settings import Settings
from cotpipe.training.memory import ModelShape, Need, needs_of, shape_of
from cotpipe.training.processes import require_even_shares

State = Literal["ok", "warn", "fail"]
_SECONDS = 10.0
_ANSWER = httpx.Timeout(120, connect=_SECONDS)  # a Prefect server may be slow at first


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    state: State
    text: str


def examine(recipe: Recipe, settings: Settings) -> Iterator[Finding]:
    """Run all checks in turn; a failed check does not stop the others."""
    shape = functools.cache(lambda: _shape(recipe.student, settings))  # GGUF is slow to read
    checks: list[tuple[str, Callable[[], tuple[State, str]]]] = [
        ("versions", _versions),
        ("store", lambda: _store(settings)),
        ("Prefect", _prefect),
        *([("Ray", lambda: _ray(settings))] if settings.ray_address else []),
        *([("your own code", lambda: _own_code(recipe))] if any(recipe.own_code()) else []),
        ("problems", lambda: _problems(recipe)),
        ("student", lambda: _student(recipe, settings)),
        ("teacher", lambda: _teacher(recipe, settings)),
        *(
            (f"memory of {stage.name}", _memory_of(stage, shape, settings))
            for stage in recipe.stages
        ),
    ]
    for name, check in checks:
        try:
            yield Finding(name, *check())
        except (UserError, RunError) as error:
            yield Finding(name, "fail", str(error))


def _versions() -> tuple[State, str]:
    """Whether every dependency is installed in a supported version."""
    wrong = []
    for text in importlib.metadata.requires("cotpipe") or []:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is not installed")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} {found} is not {requirement.specifier}")
    if wrong:
        return (
            "fail",
            f"{'; '.join(wrong)}; install with the constraints: pip install -c constraints.txt .",
        )
    return "ok", f"cotpipe {importlib.metadata.version('cotpipe')} and all its dependencies"


def _store(settings: Settings) -> tuple[State, str]:
    from cotpipe.store.artifacts import open_store

    storage = open_store(settings).storage
    name = f"doctor-{uuid.uuid4().hex[:8]}"
    storage.replace(name, b"written by cotpipe doctor")
    try:
        if storage.read(name) is None:
            return (
                "fail",
                f"{storage.address} does not return what was written to it; set COTPIPE_STORE to another "
                "location",
            )
    finally:
        storage.remove(name)
    if not storage.creates_once():
        return (
            "warn",
            f"{storage.address} is readable and writable, but its server ignores If-None-Match: of two "
            "runs that make the same artifact at the same moment, both may work and one counts",
        )
    return "ok", f"{storage.address} is readable and writable"


def _prefect() -> tuple[State, str]:
    address = os.environ.get("PREFECT_API_URL")
    if not address:
        return (
            "ok",
            "PREFECT_API_URL is not set: every run starts a temporary server",
        )
    state, text = check_server(address)
    return (state, text) if state == "fail" else _schedules(address, text)


def _ray(settings: Settings) -> tuple[State, str]:
    return "ok", require_cluster(settings, os.environ.get("PREFECT_API_URL"))


def check_server(address: str) -> tuple[State, str]:
    """Whether a Prefect server of a compatible version answers at an API address."""
    ours = importlib.metadata.version("prefect")
    try:
        answer = httpx.get(
            f"{address.rstrip('/')}/admin/version", timeout=_ANSWER, headers=_prefect_key()
        )
        if answer.status_code in (401, 403):
            return (
                "fail",
                f"{address} denies access; set PREFECT_API_AUTH_STRING (user:password) or PREFECT_API_KEY",
            )
        answer.raise_for_status()
        theirs = str(answer.json())
    except (httpx.HTTPError, ValueError) as error:
        return (
            "fail",
            f"{address} does not respond as a Prefect server ({error}); start it, or unset "
            "PREFECT_API_URL",
        )
    if theirs.split(".")[:2] != ours.split(".")[:2]:
        return (
            "fail",
            f"{address} is Prefect {theirs}, this is {ours}; install the same version on both",
        )
    return "ok", f"{address} is Prefect {theirs}"


def _schedules(address: str, text: str) -> tuple[State, str]:
    """Detect a dead scheduler: such a server looks healthy, but has no scheduled runs."""
    with httpx.Client(base_url=address, headers=_prefect_key(), timeout=_ANSWER) as client:
        client.headers.update(_csrf_token(client))
        deployments = client.post("/deployments/filter", json={}).raise_for_status().json()
        scheduled = [
            one["id"]
            for one in deployments
            if not one["paused"] and any(each["active"] for each in one["schedules"])
        ]
        chosen = {
            "deployments": {"id": {"any_": scheduled}},
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        }
        runs = (
            client.post("/flow_runs/filter", json=chosen).raise_for_status().json()
            if scheduled
            else []
        )
    silent = set(scheduled) - {run["deployment_id"] for run in runs}
    if silent:
        names = ", ".join(one["name"] for one in deployments if one["id"] in silent)
        return "warn", (
            f"{text}, but it has no scheduled run of: {names}; this is normal within a minute of its "
            "start; otherwise check the server's log and restart it"
        )
    return "ok", f"{text}; {len(deployments)} deployments, {len(runs)} scheduled runs"


def _prefect_key() -> dict[str, str]:
    """The authorization header for a server that requires a key or a password."""
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    if password := os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(password.encode()).decode()}"}
    return {}


def _csrf_token(client: httpx.Client) -> dict[str, str]:
    """The headers without which a server with CSRF protection refuses every POST."""
    name = f"cotpipe-{uuid.uuid4()}"
    answer = client.get("/csrf-token", params={"client": name})
    if not answer.is_success:
        return {}  # no protection
    return {"Prefect-Csrf-Client": name, "Prefect-Csrf-Token": answer.json()["token"]}


def _own_code(recipe: Recipe) -> tuple[State, str]:
    recipe.load_own_code()
    return "ok", f"{', '.join(recipe.own_code())} can be loaded"


def _problems(recipe: Recipe) -> tuple[State, str]:
    return "ok", recipe.problems.source.check()


def _student(recipe: Recipe, settings: Settings) -> tuple[State, str]:
    from cotpipe.steps.student import stored_checkpoint, student_identity

    student = recipe.student
    if stored_checkpoint(student.model):
        return "ok", f"{_stored_folder(student, settings)}"
    if student_identity(student.model):
        return "ok", f"{student.model} is on this machine"
    return "ok", require_on_hub("model", student.model, student.revision)


def _stored_folder(student: Student, settings: Settings) -> Path:
    """The local directory with the configuration of a student from the store."""
    from cotpipe.steps.student import stored_checkpoint
    from cotpipe.store.artifacts import open_store

    checkpoint, store = stored_checkpoint(student.model), open_store(settings)
    record = store.find(checkpoint) if checkpoint else None
    if record is None:
        raise UserError(
            f"student.model: {student.model} is not in the store {store.storage.address}, or is damaged"
        )
    return store.path(record, "model/config.json").parent


def _teacher(recipe: Recipe, settings: Settings) -> tuple[State, str]:
    from cotpipe.engines.base import Model, engines
    from cotpipe.engines.choice import choose_engine
    from cotpipe.steps.teacher import teacher_identity

    teacher = recipe.teacher
    if teacher.engine == "reference":
        return "ok", "the dataset's own rationales"
    assert teacher.model
    identity = teacher_identity(recipe)
    chosen, why = choose_engine(teacher.engine)
    if chosen == "openai":
        from cotpipe.engines.openai_engine import open_servers

        with open_servers(Model(teacher.model), settings):
            return "ok", f"{', '.join(settings.servers)}: {teacher.model} is served"
    if is_own(chosen):
        engines.find(chosen)
        return "ok", f"{chosen} exists; it will open {teacher.model}"
    found = f"{teacher.model} is on this machine"
    if isinstance(identity["model"], str):
        found = require_on_hub("model", teacher.model, teacher.revision)
    return "ok", f"{found}; engine {chosen}: {why}"


def _shape(student: Student, settings: Settings) -> ModelShape:
    from cotpipe.steps.student import read_config, stored_checkpoint

    if stored_checkpoint(student.model):
        student = Student(model=str(_stored_folder(student, settings)))
    return shape_of(read_config(student))


def _memory_of(
    stage: Stage, shape: Callable[[], ModelShape], settings: Settings
) -> Callable[[], tuple[State, str]]:
    def check() -> tuple[State, str]:
        require_even_shares(stage, settings.num_processes)
        from cotpipe.hardware.devices import fast_dtype, require_devices, training_attention

        require_devices(settings.num_processes, "COTPIPE_NUM_PROCESSES")
        model = shape()
        keeps_attention = training_attention() == "eager"
        num_bytes = fast_dtype(settings.precision).itemsize
        holders = settings.num_processes if settings.parallel == "fsdp" else 1
        needs = needs_of(stage.trainer, model, keeps_attention, num_bytes, holders)
        return judge_memory(stage.name, needs, *_memory())

    return check


def judge_memory(
    stage: str, needs: Sequence[Need], free: float, total: float, where: str
) -> tuple[State, str]:
    """Whether a stage fits into memory.

    What this machine can never hold fails. What other processes stand in the way of is a warning,
    as they may be gone when the stage starts.

    Args:
        stage: Name of the stage.
        needs: What it takes at its peak.
        free: Memory that nothing uses now (GB).
        total: Memory of the device (GB).
        where: The device, for the text.
    """
    needed = sum(need.gigabytes for need in needs)
    text = (
        f"up to about {needed:.1f} GB of {total:.1f} GB {where}, of which {free:.1f} GB are free: "
        f"{', '.join(map(str, needs))}"
    )
    remedy = f"lower {stage}.trainer.micro_batch, turn on gradient_checkpointing, or train adapters (lora)"
    if needed > total:
        return "fail", f"{text}; {remedy}"
    if needed > free:
        return "warn", f"{text}; wait until other processes have ended, or {remedy}"
    return ("warn", f"{text}; this is close to the limit") if needed > 0.85 * free else ("ok", text)


def _memory() -> tuple[float, float, str]:
    """Free and total memory (GB) of the device that trains, and the device."""
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return free / 1e9, total / 1e9, f"on {torch.cuda.get_device_name()}"
    memory: Any = psutil.virtual_memory()
    return memory.available / 1e9, memory.total / 1e9, "of memory (no GPU here)"
