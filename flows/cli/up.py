"""The commands `up` and `down`: Prefect server, worker, work pool, automations, deployments."""

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

from cotpipe.errors import RunError, UserError
from cotpipe.runs.doctor import check_server
from cotpipe.settings import Settings
from flows.cli.options import StoreOption
from flows.temporary_server import announce_slow_start

GPU_LIMIT = "gpu"
HEARTBEATS_MISSED_AFTER = timedelta(seconds=90)  # three heartbeats, see deployments/prefect.yaml
_DEPLOYMENTS = Path(__file__).parents[2] / "deployments" / "prefect.yaml"


class _Process(BaseModel):
    """A process started by `up`, as recorded in a file."""

    pid: int
    created: float  # the pid may have been reused since
    address: str  # API address of the server

    def find(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self.pid)
            return (
                process
                if abs(process.create_time() - self.created) < 1 and process.is_running()
                else None
            )
        except psutil.NoSuchProcess:
            return None


def up(
    port: Annotated[int, typer.Option(help="Port of the local server.")] = 4200,
    gpus: Annotated[
        int | None,
        typer.Option(min=1, help="Number of GPU slots; default: the GPUs of this machine, or 1."),
    ] = None,
    pool: Annotated[
        str,
        typer.Option(
            help="Work pool of the deployments; a worker is started here only for a process pool."
        ),
    ] = "cotpipe",
    foreground: Annotated[
        bool,
        typer.Option(
            "--foreground",
            help="Run the worker in the foreground, with a health check on port 8080: for containers.",
        ),
    ] = False,
    store: StoreOption = None,
) -> None:
    """Start a Prefect server and a worker, and create the deployments. Idempotent.

    If PREFECT_API_URL is set, that server is used and only the worker is started here.
    """
    address = os.environ.get("PREFECT_API_URL")
    if not address:
        address = f"http://127.0.0.1:{port}/api"
        os.environ["PREFECT_API_URL"] = (
            address  # read when Prefect is imported, here and in the worker
        )
        if not _runs_for("server", address):
            _start("server", ["server", "start", "--port", str(port)], address)
        _wait_for(address)
    state, text = check_server(address)
    if state == "fail":
        raise UserError(text)
    place = Settings().store
    os.environ["COTPIPE_STORE"] = place if "://" in place else str(Path(place).absolute())
    from flows.server import prepare_server

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
    console.print(
        f"For commands in this shell: export PREFECT_API_URL={address}",
        highlight=False,
        soft_wrap=True,
    )


def down() -> None:
    """Stop the worker and the server that `cotpipe up` started; interrupted runs can be retried."""
    console = Console()
    for name in ("worker", "server"):
        remembered = _remembered(name)
        running = remembered.find() if remembered else None
        if running:
            _end(running)
        _file(name).unlink(missing_ok=True)
        console.print(f"{name}: {'stopped' if running else 'was not running'}")


def _folder() -> Path:
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    return home / "cotpipe"


def _file(name: str) -> Path:
    return _folder() / f"{name}.json"


def _remembered(name: str) -> _Process | None:
    path = _file(name)
    return (
        _Process.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None
    )


def _runs_for(name: str, address: str) -> bool:
    """Whether server or worker is running; raises `UserError` if it is for another address."""
    remembered = _remembered(name)
    if remembered is None or remembered.find() is None:
        return False
    if remembered.address != address:
        raise UserError(
            f"the {name} that cotpipe up has started is for {remembered.address}, not for {address}; "
            "use that address, or stop it first: cotpipe down"
        )
    return True


def _start(name: str, arguments: list[str], address: str) -> None:
    """Start a Prefect command in the background, so that it outlives this one."""
    _folder().mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "PREFECT_UI_API_URL": "/api",  # else the UI of a server on another port calls port 4200
        # In memory, leases would be lost with the server, and their slots never released.
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
    """Wait until the server is ready; raises `RunError` if it exits."""
    with announce_slow_start():
        while _runs_for("server", address):
            try:
                if httpx.get(f"{address}/health", timeout=60).is_success:
                    return
            except httpx.HTTPError:
                time.sleep(0.2)
    raise RunError(
        f"the Prefect server did not start; see {_folder() / 'server.log'}, or choose another --port"
    )


def _prefect(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments],
        capture_output=True, text=True, env=os.environ | {"PWD": str(Path.cwd())}, check=False,
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-5:]
        raise RunError(f"prefect {' '.join(arguments)}: {' '.join(last)}")


def _end(process: psutil.Process) -> None:
    """Stop a process and its children: SIGINT first, then SIGKILL."""
    processes = [process, *process.children(recursive=True)]
    process.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs([process], timeout=20)
    for left in [*alive, *processes]:
        if left.is_running():
            left.kill()
    psutil.wait_procs(processes, timeout=10)
