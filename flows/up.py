"""The commands `up` and `down`: Prefect's server, work pool, GPU slots, automations, deployments and a worker."""

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import httpx
import psutil
import typer
from pydantic import BaseModel
from rich.console import Console

from cotpipe.doctor import check_server
from cotpipe.errors import RunError, UserError
from cotpipe.settings import Settings
from flows.store_cli import StoreOption

GPU_LIMIT = "gpu"
HEARTBEATS_MISSED_AFTER = timedelta(seconds=90)  # three heartbeats, see deployments/prefect.yaml
_DEPLOYMENTS = Path(__file__).parent.parent / "deployments" / "prefect.yaml"
_START_SECONDS = 120.0


class _Process(BaseModel):
    """A process that `up` has started, as it is remembered in a file."""

    pid: int
    created: float  # a pid alone may belong to another process by now
    address: str  # of the server that it is, or works for

    def find(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self.pid)
            return process if abs(process.create_time() - self.created) < 1 and process.is_running() else None
        except psutil.NoSuchProcess:
            return None


def up(
    port: Annotated[int, typer.Option(help="Port of the local server, if one is started.")] = 4200,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="Slots for GPU work at a time; default: the GPUs here, or 1.")
    ] = None,
    pool: Annotated[
        str,
        typer.Option(help="Work pool of the deployments; one that is no process pool has its workers elsewhere."),
    ] = "cotpipe",
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Become the worker, with its health at port 8080: for containers.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Start Prefect's server and a worker, and make the deployments; what is there already is left as it is.

    With PREFECT_API_URL set, that server is used, and only the worker is started here.
    """
    address = os.environ.get("PREFECT_API_URL")
    if not address:
        address = f"http://127.0.0.1:{port}/api"
        os.environ["PREFECT_API_URL"] = address  # read when Prefect is imported, below and in the worker
        if not _runs_for("server", address):
            _start("server", ["server", "start", "--port", str(port)], address)
        _wait_for(address)
    state, text = check_server(address)
    if state == "fail":
        raise UserError(text)
    place = Settings(store=store).store if store else Settings().store
    os.environ["COTPIPE_STORE"] = place if "://" in place else str(Path(place).absolute())
    from flows.stack import prepare_server

    works_here = prepare_server(pool, GPU_LIMIT, gpus, HEARTBEATS_MISSED_AFTER) == "process"
    os.environ["COTPIPE_POOL"] = pool  # read by prefect.yaml
    _prefect("--no-prompt", "deploy", "--all", "--prefect-file", str(_DEPLOYMENTS))
    worker = ["worker", "start", "--pool", pool, "--type", "process"]
    if foreground and works_here:
        os.execv(sys.executable, [sys.executable, "-m", "prefect", *worker, "--with-healthcheck"])  # noqa: S606
    if works_here and not _runs_for("worker", address):
        _start("worker", worker, address)
    console = Console()
    console.print(f"Prefect: {address.removesuffix('/api')}", highlight=False)
    console.print(f"store:   {os.environ['COTPIPE_STORE']}", highlight=False, soft_wrap=True)
    console.print(f"logs:    {_folder()}", highlight=False, soft_wrap=True)
    console.print(f"For commands in this shell: export PREFECT_API_URL={address}", highlight=False, soft_wrap=True)


def down() -> None:
    """End the worker and the server that `cotpipe up` has started; runs under way are kept and can be retried."""
    console = Console()
    for name in ("worker", "server"):
        remembered = _remembered(name)
        running = remembered.find() if remembered else None
        if running:
            _end(running)
        _file(name).unlink(missing_ok=True)
        console.print(f"{name}: {'ended' if running else 'was not running'}")


def _folder() -> Path:
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    return home / "cotpipe"


def _file(name: str) -> Path:
    return _folder() / f"{name}.json"


def _remembered(name: str) -> _Process | None:
    path = _file(name)
    return _Process.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None


def _runs_for(name: str, address: str) -> bool:
    """Whether server or worker runs; raises `UserError` where that is for another address."""
    remembered = _remembered(name)
    if remembered is None or remembered.find() is None:
        return False
    if remembered.address != address:
        raise UserError(
            f"the {name} that cotpipe up has started is for {remembered.address}, not for {address}; use that one, or "
            "end it first: cotpipe down"
        )
    return True


def _start(name: str, arguments: list[str], address: str) -> None:
    """Start one of Prefect's commands so that it outlives this one."""
    _folder().mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "PREFECT_UI_API_URL": "/api",  # else the page of a server on another port asks port 4200
        # In memory, the slots that are held would be lost with the server, and never be free again.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_LOGGING_LEVEL": "INFO",
    }
    with (_folder() / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", *arguments],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True,
        )  # fmt: skip
    created = psutil.Process(process.pid).create_time()
    entry = _Process(pid=process.pid, created=created, address=address)
    _file(name).write_text(entry.model_dump_json(), encoding="utf-8")


def _wait_for(address: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and _runs_for("server", address):
        try:
            if httpx.get(f"{address}/health", timeout=2).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise RunError(f"Prefect's server did not start; see {_folder() / 'server.log'}, or choose another --port")


def _prefect(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments],
        capture_output=True, text=True, env=os.environ | {"PWD": str(Path.cwd())}, check=False,
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-5:]
        raise RunError(f"prefect {' '.join(arguments)}: {' '.join(last)}")


def _end(process: psutil.Process) -> None:
    """Ask it to end, as Ctrl-C would, and its children with it; then insist."""
    processes = [process, *process.children(recursive=True)]
    process.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs([process], timeout=20)
    for left in [*alive, *processes]:
        if left.is_running():
            left.kill()
    psutil.wait_procs(processes, timeout=10)
