"""To whom `cotpipe up` tells its password: to the server that it has started, and nobody else."""

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from cotpipe.errors import RunError, UserError
from flows import background
from flows.background import Process, kept_password, log_in, make_password, password_file, record_of
from flows.cli import up
from flows.cli.terminal import Terminal
from tests.helpers.servers import free_port


class Stranger(ThreadingHTTPServer):
    """Another program on a port: answers everything, and keeps what it is told."""

    def __init__(self, port: int) -> None:
        self.told: list[str | None] = []
        super().__init__(("127.0.0.1", port), _Listening)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Listening(BaseHTTPRequestHandler):
    server: Stranger

    def do_GET(self) -> None:
        self.server.told.append(self.headers.get("Authorization"))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'"3.0"')

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port(tmp_path, monkeypatch) -> int:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"):
        monkeypatch.setenv(name, "")  # `up` sets some: they are put back
    return free_port()


def remember(pid: int, address: str) -> None:
    """Write down a process as the server that `up` has started."""
    background.folder().mkdir(parents=True, exist_ok=True)
    entry = Process(pid=pid, created=psutil.Process(pid).create_time(), address=address)
    record_of("server").write_text(entry.model_dump_json())


@pytest.fixture
def other_process() -> Iterator[subprocess.Popen]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def test_up_does_not_start_on_a_port_that_another_program_has(port, tmp_path):
    stranger = Stranger(port)
    command = [sys.executable, "-m", "flows.cli", "up", "--port", str(port)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "--port" in done.stderr
    assert not password_file().exists()
    assert stranger.told == []
    stranger.shutdown()


def test_a_program_that_takes_the_port_while_the_server_starts_is_not_told_the_password(
    port, monkeypatch
):
    strangers = []
    start = subprocess.Popen

    def start_late(command, **options):
        strangers.append(Stranger(port))
        return start([sys.executable, "-c", "import time; time.sleep(1)"], **options)

    monkeypatch.setattr(subprocess, "Popen", start_late)
    with pytest.raises(RunError, match="choose another --port"):
        up._serve(port, f"http://127.0.0.1:{port}/api", Terminal())
    assert strangers[0].told == []
    strangers[0].shutdown()


def test_no_command_tells_the_password_while_the_server_does_not_listen(
    port, other_process, monkeypatch
):
    make_password()
    stranger = Stranger(port)
    address = f"http://127.0.0.1:{port}/api"
    remember(other_process.pid, address)  # runs, but has not come to listen
    monkeypatch.setenv("PREFECT_API_URL", address)
    log_in()
    assert os.environ["PREFECT_API_AUTH_STRING"] == ""
    stranger.shutdown()


def test_up_beside_a_server_without_a_password_shows_none_and_says_what_to_do(
    port, prefect, monkeypatch
):
    taken = urlsplit(prefect).port
    assert taken
    (listening,) = {
        one.pid
        for one in psutil.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN and one.laddr.port == taken
    }
    assert listening
    remember(listening, prefect)
    with pytest.raises(UserError, match="asks for no password.*cotpipe down, then cotpipe up"):
        up._serve(taken, prefect, Terminal())
    assert not password_file().exists()


def test_up_makes_no_password_that_a_running_server_does_not_ask_for(port):
    with pytest.raises(UserError, match="is gone.*cotpipe down, then cotpipe up"):
        up._password(Terminal(), new=False)
    assert not password_file().exists()


@pytest.mark.parametrize("in_force", [True, False])
def test_up_shows_the_password_that_is_in_force(port, in_force, monkeypatch, capsys):
    kept = make_password().get_secret_value()
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", kept if in_force else "admin:another")
    monkeypatch.setenv("COTPIPE_STORE", "store")
    up._tell("http://127.0.0.1:1/api", Terminal())
    shown = capsys.readouterr()
    assert (str(password_file()) in shown.out + shown.err) == in_force


def test_all_that_start_at_once_get_one_whole_password(port):
    with ThreadPoolExecutor(8) as pool:
        made = [each.result() for each in [pool.submit(make_password) for _ in range(40)]]
    kept = kept_password()
    assert kept
    assert {one.get_secret_value() for one in made} == {kept.get_secret_value()}
    assert stat.S_IMODE(password_file().stat().st_mode) == 0o600
    assert [path.name for path in Path(background.folder()).iterdir()] == ["password"]
