"""How runs end that have no server of their own choice: interrupted, killed, or never begun."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from flows.temporary_server import TemporaryServer
from tests.helpers.flow_runs import assert_one_line_error, cotpipe_process
from tests.helpers.polling import PATIENCE, polls
from tests.helpers.prefect_server import make_prefect_home


@pytest.fixture
def home(prefect, tmp_path) -> Path:
    """A PREFECT_HOME whose database is there: it takes a server as long to make one as to start."""
    return make_prefect_home(tmp_path / "prefect")


@pytest.fixture
def under_way(home, tmp_path, tiny_student):
    """A run that is in its first evaluation, which takes minutes."""
    environment = os.environ | {"PREFECT_HOME": str(home)}
    changes = (
        f"student.model={tiny_student}",
        "evaluation.max_new_tokens=700",
        "stage1.trainer.max_length=1000",
    )
    command = [sys.executable, "-m", "flows.cli", "run", "--store", str(tmp_path / "store")]
    command += [option for change in changes for option in ("--set", change)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    ) as process:  # fmt: skip
        for _ in polls():
            if (tmp_path / "store" / "lessons").exists() or process.poll() is not None:
                break
        yield process
        process.kill()


def servers_of(process: subprocess.Popen) -> list[psutil.Process]:
    found = psutil.Process(process.pid).children(recursive=True)
    return [one for one in found if "flows.temporary_server" in one.cmdline()]


def test_ctrl_c_is_one_line_and_keeps_what_is_finished(under_way, home, tmp_path):
    servers = servers_of(under_way)
    os.killpg(under_way.pid, signal.SIGINT)  # as a terminal does
    _, errors = under_way.communicate(timeout=PATIENCE)
    assert under_way.returncode == 1, errors
    last = errors.strip().splitlines()[-1]
    assert last.startswith("cotpipe: interrupted; finished steps are kept"), errors
    assert "Traceback" not in errors
    assert list((tmp_path / "store" / "lessons").iterdir())
    assert len(servers) == 1
    assert not servers[0].is_running()
    with sqlite3.connect(home / "prefect.db") as database:
        assert database.execute("select state_type from flow_run").fetchall() == [("CRASHED",)]


def test_ctrl_c_does_not_wait_for_answers_that_are_being_generated(under_way, home):
    for _ in polls():  # the first answers show sooner there than in the terminal
        assert under_way.poll() is None, "the run has ended"
        with sqlite3.connect(home / "prefect.db") as database:
            asked = "select 1 from artifact where key = 'progress-evaluation-base'"
            if database.execute(asked).fetchall():
                break
    os.killpg(under_way.pid, signal.SIGINT)
    _, errors = under_way.communicate(timeout=PATIENCE)  # of several minutes
    assert under_way.returncode == 1, errors
    assert errors.splitlines()[-1].startswith("cotpipe: interrupted; finished steps are kept")
    with sqlite3.connect(home / "prefect.db") as database:
        assert database.execute("select state_type from flow_run").fetchall() == [("CRASHED",)]


def test_a_run_that_is_killed_takes_its_server_with_it(under_way):
    servers = servers_of(under_way)
    under_way.kill()
    assert len(servers) == 1
    assert not psutil.wait_procs(servers, timeout=PATIENCE)[1]


def test_a_server_that_cannot_start_is_one_line(tmp_path):
    home = tmp_path / "prefect"
    home.write_text("a file, not a folder")
    done = cotpipe_process("run", "--store", str(tmp_path / "store"), PREFECT_HOME=str(home))
    assert_one_line_error(done, 1, "server ended: ", "unable to open database", "PREFECT_HOME")


def test_the_server_of_a_run_is_for_that_run_alone(home, monkeypatch):
    monkeypatch.setenv("PREFECT_HOME", str(home))
    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING"):
        monkeypatch.setenv(name, "")  # restored afterwards: the server sets them
        monkeypatch.delenv(name)
    server = TemporaryServer()
    try:
        start = f"{os.environ['PREFECT_API_URL']}/flow_runs/"
        assert start.startswith("http://127.0.0.1:")
        assert httpx.post(start, json={}).status_code == 401
        user, password = os.environ["PREFECT_API_AUTH_STRING"].split(":")
        assert httpx.post(start, json={}, auth=(user, password)).status_code == 422  # no flow named
        asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
        assert httpx.options(start, headers=asked).status_code == 400
    finally:
        server.end()


def test_a_slow_start_says_what_it_waits_for(tmp_path):
    done = cotpipe_process(
        "run", "--store", str(tmp_path / "store"), "--until", "problems",
        PREFECT_HOME=str(tmp_path / "prefect"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "The Prefect server is starting" in done.stderr.splitlines()[0]


def test_a_server_of_a_prefect_profile_is_used(tmp_path):
    profile = '[profiles.mine]\nPREFECT_API_URL = "http://127.0.0.1:9/api"\nPREFECT_CLIENT_MAX_RETRIES = 0\n'
    (tmp_path / "profiles.toml").write_text('active = "mine"\n' + profile)
    done = cotpipe_process("run", "--store", str(tmp_path / "store"), PREFECT_HOME=str(tmp_path))
    assert_one_line_error(done, 1, "check PREFECT_API_URL")
