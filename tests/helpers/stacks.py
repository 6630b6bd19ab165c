"""A whole cotpipe as `cotpipe up` makes it: server, worker, deployments."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.helpers.polling import PATIENCE, polls
from tests.helpers.repository import ROOT
from tests.helpers.servers import free_port

FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class Stack:
    """Starts and asks one stack; what it writes lies under `folder`."""

    def __init__(self, folder: Path, student: Path, **environment: str) -> None:
        self.folder, self.student, self.port = folder, student, free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.store = folder / "store"
        self.told = ""  # by the first `up`
        self.teacher_port = free_port()  # nobody listens until a test does
        self.environment = os.environ | {
            "PREFECT_HOME": str(folder / "prefect"), "COTPIPE_STORE": str(self.store), "COTPIPE_TRAINING_STATE_SECONDS": "0",
            "OMP_NUM_THREADS": "1", "COTPIPE_RECIPES": str(ROOT / "tests" / "helpers"), "COTPIPE_SERVERS": f"http://127.0.0.1:{self.teacher_port}/v1",
        } | environment  # fmt: skip
        self.environment.pop("PREFECT_API_URL", None)
        self.client = httpx.Client(base_url=f"{self.address}/api", timeout=60)

    def cotpipe(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "flows.cli", *arguments]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=self.environment | environment,
            cwd=self.folder,
            timeout=PATIENCE,
        )

    def doctor_on_prefect(self, **environment: str) -> str:
        """The doctor's line on the server; without a student, for which it would load torch."""
        done = self.cotpipe("doctor", "--set", "student.model=./none", **environment)
        (line,) = (line for line in done.stdout.splitlines() if "Prefect:" in line)
        return line

    def up(self) -> str:
        done = self.cotpipe("up", "--port", str(self.port))
        assert done.returncode == 0, done.stderr
        self.log_in()
        self.told = self.told or done.stdout
        return done.stdout

    @property
    def password(self) -> str:
        """User and password (`admin:...`): those that the environment gives, else those that `up` made."""
        given = self.environment.get("PREFECT_API_AUTH_STRING")
        return given or (self.folder / "prefect" / "cotpipe" / "password").read_text()

    def log_in(self) -> None:
        """Let the client show the password and a CSRF token with everything that it asks."""
        self.client.auth = httpx.BasicAuth(*self.password.split(":", 1))
        token = self.client.get("/csrf-token", params={"client": "test"}).raise_for_status().json()
        self.client.headers.update(
            {"Prefect-Csrf-Client": "test", "Prefect-Csrf-Token": token["token"]}
        )

    def down(self) -> None:
        done = self.cotpipe("down")
        assert done.returncode == 0, done.stderr

    def start(
        self,
        deployment: str,
        recipe: dict | None = None,
        *,
        student: bool = True,
        **parameters: object,
    ) -> str:
        """Start a run of the tiny recipe, with changes; returns its id."""
        flow = "nightly" if deployment == "nightly" else "curriculum"
        found = self.client.get(f"/deployments/name/{flow}/{deployment}").raise_for_status().json()
        recipe = ({"student": {"model": str(self.student)}} if student else {}) | (recipe or {})
        body = {"parameters": {"start_from": "tiny", "recipe": recipe} | parameters}
        return self.ask(f"/deployments/{found['id']}/create_flow_run", body)["id"]

    def ask(self, path: str, body: dict) -> Any:
        """The answer to a POST; SQLite may be locked for a moment (503)."""
        for _ in polls():
            answer = self.client.post(path, json=body)
            if answer.status_code != 503:
                break
        return answer.raise_for_status().json()

    def run(self, run_id: str) -> dict:
        return self.client.get(f"/flow_runs/{run_id}").raise_for_status().json()

    def set_state(self, run_id: str, kind: str, name: str) -> None:
        body = {"state": {"type": kind, "name": name}, "force": False}
        self.ask(f"/flow_runs/{run_id}/set_state", body)

    def wait(self, run_id: str, *states: str) -> dict:
        """Wait until a run is in one of the states (default: any final one); returns the run."""
        wanted = states or FINAL
        for _ in polls():
            with contextlib.suppress(
                httpx.TransportError
            ):  # the server may be away for a test's sake
                run = self.run(run_id)
                if run["state"]["type"] in wanted:
                    return run
        raise AssertionError(f"{run['state']} is not {wanted}\n{self.logs(run_id)}")

    def tasks(self, run_id: str) -> dict[str, str]:
        """The last state of every task, by its name."""
        body = {"flow_runs": {"id": {"any_": [run_id]}}, "sort": "EXPECTED_START_TIME_ASC"}
        found = self.ask("/task_runs/filter", body)
        return {task["name"]: task["state_name"] for task in found}

    def wait_for_tasks(self, run_id: str, expected: dict[str, str]) -> None:
        """The server writes the states of tasks a little later."""
        for _ in polls():
            if expected.items() <= self.tasks(run_id).items():
                return
        assert expected.items() <= self.tasks(run_id).items()

    def logs(self, run_id: str) -> str:
        body = {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
        return "\n".join(line["message"] for line in self.ask("/logs/filter", body))

    def artifacts(self, run_id: str) -> dict[str, dict]:
        body = {"flow_runs": {"id": {"any_": [run_id]}}}
        return {one["key"]: one for one in self.ask("/artifacts/filter", body)}

    def kill(self, name: str) -> None:
        """SIGKILL the server or the worker, with all that it has started."""
        pid = json.loads((self.folder / "prefect" / "cotpipe" / f"{name}.json").read_text())["pid"]
        process = psutil.Process(pid)
        for each in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs([process], timeout=PATIENCE)

    def training(self) -> list[psutil.Process]:
        """The training processes of this stack's runs."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                line = " ".join(process.cmdline())
                if (
                    "cotpipe.training" in line
                    and str(self.store) in line
                    and process.status() != "zombie"
                ):
                    found.append(process)
        return found

    def wait_for_training_state(self, kind: str) -> None:
        """Until a stage in training has saved where it stands."""
        for _ in polls():
            if list(self.store.glob(f"{kind}/*/training-state/*.json")):
                return
        raise AssertionError("no training state was saved")
