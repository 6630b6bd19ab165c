"""The commands `up` and `down`: Prefect server, worker, work pool, automations, deployments."""

import os
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import httpx
import psutil
import typer

from cotpipe.errors import RunError, UserError
from cotpipe.runs.doctor import check_server
from cotpipe.settings import Settings
from flows.background import (
    Process,
    folder,
    kept_password,
    log_in,
    make_password,
    password_file,
    record_of,
    remembered,
)
from flows.cli.options import StoreOption
from flows.cli.terminal import Terminal
from flows.temporary_server import announce_slow_start

GPU_LIMIT = "gpu"
HEARTBEATS_MISSED_AFTER = timedelta(seconds=90)  # three heartbeats, see _OF_RUNS
_OF_RUNS = {
    "COTPIPE_GPU_LIMIT": GPU_LIMIT,  # GPU steps hold slots of this limit
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "cotpipe",  # warnings of the library go to the run's log
    "PREFECT_CLIENT_MAX_RETRIES": "10",  # runs survive a server restart
}
"""What a worker of a process pool hands on to its runs, which take no environment of their own."""
_DEPLOYMENTS = Path(__file__).parents[2] / "deployments" / "prefect.yaml"


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

    The server is for this machine only, behind a password that the first start makes and shows.
    If PREFECT_API_URL is set, that server is used and only the worker is started here.
    """
    console = Terminal()
    address = os.environ.get("PREFECT_API_URL")
    if not address:
        address = f"http://127.0.0.1:{port}/api"
        _serve(port, address, console)
    log_in()
    state, text = check_server(address)
    if state == "fail":
        raise UserError(text)
    place = Settings().store
    os.environ["COTPIPE_STORE"] = place if "://" in place else str(Path(place).absolute())
    from flows.server import prepare_server

    works_here = (
        prepare_server(pool, Path.cwd(), GPU_LIMIT, gpus, HEARTBEATS_MISSED_AFTER) == "process"
    )
    os.environ["COTPIPE_POOL"] = pool  # read by prefect.yaml
    _prefect("--no-prompt", "deploy", "--all", "--prefect-file", str(_DEPLOYMENTS))
    worker = ["worker", "start", "--pool", pool, "--type", "process"]
    if foreground and works_here:
        command = [sys.executable, "-m", "prefect", *worker, "--with-healthcheck"]
        os.execve(sys.executable, command, os.environ | _OF_RUNS)  # noqa: S606
    if works_here and not _runs_for("worker", address):
        _start("worker", worker, address, _OF_RUNS)
    _tell(address, console)


def down() -> None:
    """Stop the worker and the server that `cotpipe up` started; interrupted runs can be retried."""
    console = Terminal()
    for name in ("worker", "server"):
        found = remembered(name)
        running = found.find() if found else None
        if running:
            _end(running)
        record_of(name).unlink(missing_ok=True)
        console.print(f"{name}: {'stopped' if running else 'was not running'}")


def _tell(address: str, console: Terminal) -> None:
    lines = [
        f"Prefect: {address.removesuffix('/api')}",
        f"store:   {os.environ['COTPIPE_STORE']}",
        f"logs:    {folder()}",
        f"For commands in this shell: export PREFECT_API_URL={address}",
    ]
    given, known = os.environ.get("PREFECT_API_AUTH_STRING"), kept_password()
    if known and known.get_secret_value() == given:
        kept = f"export PREFECT_API_AUTH_STRING=$(cat {password_file()})"
        lines.append(f"For Prefect's own commands: {kept}")
    for line in lines:
        console.print(line, soft_wrap=True)


def _runs_for(name: str, address: str) -> bool:
    """Whether server or worker is running; raises `UserError` if it is for another address."""
    found = remembered(name)
    if found is None or found.find() is None:
        return False
    if found.address != address:
        raise UserError(
            f"the {name} that cotpipe up has started is for {found.address}, not for {address}; "
            "use that address, or stop it first: cotpipe down"
        )
    return True


def _serve(port: int, address: str, console: Terminal) -> None:
    """Start the local server if it does not run; this process and its children log in to it."""
    os.environ["PREFECT_API_URL"] = address  # read when Prefect is imported
    running = _runs_for("server", address)
    if running:
        _wait_for(address)
        _require_closed(address)
    elif _is_taken(port):
        raise UserError(
            f"another program listens on port {port}; end it, or choose another: "
            f"cotpipe up --port {port + 1}"
        )
    password = _password(console, new=not running)
    os.environ["PREFECT_API_AUTH_STRING"] = password
    if not running:
        command = ["server", "start", "--host", "127.0.0.1", "--port", str(port)]
        _start("server", command, address, _closed_to_others(address, password))
        _wait_for(address)


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _require_closed(address: str) -> None:
    """Raise `UserError` if the running server asks for no password."""
    if httpx.get(f"{address}/admin/version", timeout=60).is_success:
        raise UserError(
            f"the server at {address} asks for no password (an older version of cotpipe has started "
            "it), so anybody on this machine can start runs; start it again: cotpipe down, then "
            "cotpipe up"
        )


def _password(console: Terminal, new: bool) -> str:
    """User and password: of the environment, else the kept ones, else new ones, which are shown.

    A server that runs already has a password: raises `UserError` if `new` ones are not possible.
    """
    for name in ("PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"):
        if os.environ.get(name):
            return os.environ[name]
    kept = kept_password()
    if kept is None and not new:
        raise UserError(
            f"{password_file()}, the password of the running server, is gone; set "
            "PREFECT_API_AUTH_STRING to it, or make another: cotpipe down, then cotpipe up"
        )
    if kept is None:
        kept = make_password()
        console.print(
            f"password: {kept.get_secret_value()}\n"
            f"          for the login page of the UI; shown this once, kept in {password_file()}",
            soft_wrap=True,
        )
    return kept.get_secret_value()


def _closed_to_others(address: str, password: str) -> dict[str, str]:
    """The environment of a server that no web page and no other user of the machine can use."""
    return {
        "PREFECT_SERVER_API_AUTH_STRING": password,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": address.removesuffix("/api"),
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_UI_API_URL": "/api",  # else the UI of a server on another port calls port 4200
        # In memory, leases would be lost with the server, and their slots never released.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    }


def _start(name: str, arguments: list[str], address: str, more: dict[str, str]) -> None:
    """Start a Prefect command in the background, so that it outlives this one."""
    folder().mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"PREFECT_LOGGING_LEVEL": "INFO"} | more
    with (folder() / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", *arguments],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True,
        )  # fmt: skip
    created = psutil.Process(process.pid).create_time()
    entry = Process(pid=process.pid, created=created, address=address)
    record_of(name).write_text(entry.model_dump_json(), encoding="utf-8")


def _wait_for(address: str) -> None:
    """Wait until our own server is ready; raises `RunError` if it exits.

    Whoever else answers at its address is asked nothing, and so is told no password.
    """
    with announce_slow_start():
        while _runs_for("server", address):
            server = remembered("server")
            try:
                if (
                    server
                    and server.listens()
                    and httpx.get(f"{address}/health", timeout=60).is_success
                ):
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
    raise RunError(
        f"the Prefect server did not start; see {folder() / 'server.log'}, or choose another --port"
    )


def _prefect(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments],
        capture_output=True, text=True, check=False,
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
