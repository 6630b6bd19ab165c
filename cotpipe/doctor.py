"""Whether a recipe can run here: each check is ok, a warning or a failure, with the way out."""

import base64
import importlib.metadata
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import psutil
from packaging.requirements import Requirement

from cotpipe.config import FileSource, HubSource, Recipe, Student
from cotpipe.errors import RunError, UserError
from cotpipe.settings import Settings

State = Literal["ok", "warn", "fail"]
_SECONDS = 10.0


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's."""

    name: str
    state: State
    text: str


def examine(recipe: Recipe, settings: Settings) -> Iterator[Finding]:
    """All checks, one after the other; a check that fails does not keep the others from being made."""
    checks: list[tuple[str, Callable[[], tuple[State, str]]]] = [
        ("versions", _versions),
        ("store", lambda: _store(settings)),
        ("Prefect", _prefect),
        ("problems", lambda: _problems(recipe)),
        ("student", lambda: _student(recipe, settings)),
        ("teacher", lambda: _teacher(recipe, settings)),
        *((f"memory of {stage}", _memory_of(recipe, stage, settings)) for stage in ("stage1", "stage2", "stage3")),
    ]
    for name, check in checks:
        try:
            yield Finding(name, *check())
        except (UserError, RunError) as error:
            yield Finding(name, "fail", str(error))


def _versions() -> tuple[State, str]:
    """Whether every dependency is there in a version that was seen to work."""
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
        return "fail", f"{'; '.join(wrong)}; install with the constraints: pip install -c constraints.txt ."
    return "ok", f"cotpipe {importlib.metadata.version('cotpipe')} and all it needs"


def _store(settings: Settings) -> tuple[State, str]:
    from cotpipe.store import open_store

    storage = open_store(settings).storage
    name = f"doctor-{uuid.uuid4().hex[:8]}"
    storage.replace(name, b"written by cotpipe doctor")
    try:
        if storage.read(name) is None:
            return "fail", f"{storage.address} does not give back what is written to it; set COTPIPE_STORE elsewhere"
    finally:
        storage.remove(name)
    return "ok", f"{storage.address} can be written and read"


def _prefect() -> tuple[State, str]:
    address = os.environ.get("PREFECT_API_URL")
    if not address:
        return "ok", "no server is set (PREFECT_API_URL): every run starts its own for as long as it takes"
    state, text = check_server(address)
    return (state, text) if state == "fail" else _schedules(address, text)


def check_server(address: str) -> tuple[State, str]:
    """Whether a Prefect server answers at an API address, in a version that fits."""
    ours = importlib.metadata.version("prefect")
    try:
        answer = httpx.get(f"{address.rstrip('/')}/admin/version", timeout=_SECONDS, headers=_prefect_key())
        if answer.status_code in (401, 403):
            return "fail", f"{address} refuses us; set PREFECT_API_AUTH_STRING (user:password) or PREFECT_API_KEY"
        answer.raise_for_status()
        theirs = str(answer.json())
    except (httpx.HTTPError, ValueError) as error:
        return "fail", f"{address} does not answer as a Prefect server ({error}); start it, or unset PREFECT_API_URL"
    if theirs.split(".")[:2] != ours.split(".")[:2]:
        return "fail", f"{address} is Prefect {theirs}, this is {ours}; bring both to one version"
    return "ok", f"{address} is Prefect {theirs}"


def _schedules(address: str, text: str) -> tuple[State, str]:
    """A server whose scheduler has died looks well and starts nothing; it has made no runs for the next days."""
    with httpx.Client(base_url=address, headers=_prefect_key(), timeout=_SECONDS) as client:
        deployments = client.post("/deployments/filter", json={}).raise_for_status().json()
        scheduled = [
            one["id"] for one in deployments if not one["paused"] and any(each["active"] for each in one["schedules"])
        ]
        chosen = {"deployments": {"id": {"any_": scheduled}}, "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
        runs = client.post("/flow_runs/filter", json=chosen).raise_for_status().json() if scheduled else []
    silent = set(scheduled) - {run["deployment_id"] for run in runs}
    if silent:
        names = ", ".join(one["name"] for one in deployments if one["id"] in silent)
        return "warn", (
            f"{text}, but it has planned no run of: {names}; a minute after a start that is normal, later see the "
            "server's log and restart it"
        )
    return "ok", f"{text}; {len(deployments)} deployments, {len(runs)} runs planned"


def _prefect_key() -> dict[str, str]:
    """What a server that asks for a key or a password wants to see."""
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    if password := os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(password.encode()).decode()}"}
    return {}


def _problems(recipe: Recipe) -> tuple[State, str]:
    source = recipe.problems.source
    if isinstance(source, FileSource):
        missing = [path for path in (source.path, source.test_path) if path and not Path(path).is_file()]
        if missing:
            return "fail", f"no such file: {', '.join(missing)}; set problems.source.path"
        return "ok", f"{source.path} is there"
    if isinstance(source, HubSource):
        return _on_the_hub("dataset", source.dataset, source.revision)
    return "ok", f"made by the source {source.kind!r}"


def _student(recipe: Recipe, settings: Settings) -> tuple[State, str]:
    from cotpipe.steps.student import stored_checkpoint, student_identity

    student = recipe.student
    if stored_checkpoint(student.model):
        return "ok", f"{_stored_folder(student, settings)}"
    if student_identity(student.model):
        return "ok", f"{student.model} is on this machine"
    return _on_the_hub("model", student.model, student.revision)


def _stored_folder(student: Student, settings: Settings) -> Path:
    """Where the configuration of a student that the store holds lies on this machine."""
    from cotpipe.steps.student import stored_checkpoint
    from cotpipe.store import open_store

    checkpoint, store = stored_checkpoint(student.model), open_store(settings)
    record = store.find(checkpoint) if checkpoint else None
    if record is None:
        raise UserError(f"student.model: {student.model} is not in the store {store.storage.address}, or is damaged")
    return store.path(record, "model/config.json").parent


def _on_the_hub(kind: Literal["model", "dataset"], name: str, revision: str | None) -> tuple[State, str]:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    api = HfApi()
    ask = api.model_info if kind == "model" else api.dataset_info
    try:
        ask(name, revision=revision, timeout=_SECONDS)
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx.HTTPError, OSError) as error:
        first = str(error).strip().splitlines()[0][:200]
        way_out = "check the name, the network and HF_TOKEN, or use a folder"
        return "fail", f"the hub does not give {name}: {first}; {way_out}"
    return "ok", f"{name} is on the hub"


def _teacher(recipe: Recipe, settings: Settings) -> tuple[State, str]:
    from cotpipe.engines.base import Model
    from cotpipe.engines.choice import choose_engine
    from cotpipe.steps.teacher import teacher_identity

    teacher = recipe.teacher
    if teacher.engine == "reference":
        return "ok", "the data set's own rationales"
    assert teacher.model
    identity = teacher_identity(recipe)
    chosen, why = choose_engine(teacher.engine)
    if chosen == "openai":
        from cotpipe.engines.openai_engine import open_servers

        with open_servers(Model(teacher.model), settings):
            return "ok", f"{', '.join(settings.servers)}: {teacher.model} is served"
    if isinstance(identity["model"], str):
        state, text = _on_the_hub("model", teacher.model, teacher.revision)
        return state, f"{text}; engine {chosen}: {why}"
    return "ok", f"{teacher.model} is on this machine; engine {chosen}: {why}"


def _memory_of(recipe: Recipe, stage: str, settings: Settings) -> Callable[[], tuple[State, str]]:
    def check() -> tuple[State, str]:
        from cotpipe.hardware import training_attention
        from cotpipe.memory import needs_of, shape_of
        from cotpipe.steps.student import read_config, stored_checkpoint

        student = recipe.student
        if stored_checkpoint(student.model):
            student = Student(model=str(_stored_folder(student, settings)))
        shape = shape_of(read_config(student))
        needs = needs_of(getattr(recipe, stage), shape, keeps_attention=training_attention() == "eager")
        total = sum(need.gigabytes for need in needs)
        free, where = _free_memory()
        text = f"at most about {total:.1f} GB of {free:.1f} GB {where}: {', '.join(map(str, needs))}"
        if total > free:
            way_out = f"lower {stage}.micro_batch, turn on gradient_checkpointing, or train adapters (lora)"
            return "fail", f"{text}; {way_out}"
        return ("warn", f"{text}; that is close") if total > 0.85 * free else ("ok", text)

    return check


def _free_memory() -> tuple[float, str]:
    """Gigabytes, and where they are."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0] / 1e9, f"free on {torch.cuda.get_device_name()}"
    available: Any = psutil.virtual_memory().available
    return available / 1e9, "free memory (no GPU here)"
