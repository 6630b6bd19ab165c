"""Real nodes of a Ray cluster on this machine, each a group of processes that can be killed."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.helpers.polling import wait_until
from tests.helpers.repository import ROOT
from tests.helpers.servers import free_port

_STARTED = "Ray runtime started"


class RayNodes:
    """A head with one CPU, and nodes that join it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._processes = folder, {}
        port, client_port = free_port(), free_port()
        self.address, self.client_address = f"127.0.0.1:{port}", f"ray://127.0.0.1:{client_port}"
        self._start("head", "--head", f"--port={port}", "--node-ip-address=127.0.0.1",
                    "--include-dashboard=false", f"--ray-client-server-port={client_port}", f"--temp-dir={folder}/ray")  # fmt: skip

    def join(self, name: str, **environment: str) -> None:
        """Start a node with one CPU; its processes have `NODE=name` in their environment."""
        self._start(name, f"--address={self.address}", **environment)

    def _start(self, name: str, *options: str, **environment: str) -> None:
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", "--num-cpus=1",
            "--num-gpus=0", "--object-store-memory=80000000", *options,
        ]  # fmt: skip
        path = os.pathsep.join([environment.pop("PYTHONPATH", ""), str(ROOT)]).strip(os.pathsep)
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            self._processes[name] = process = subprocess.Popen(
                command, stdout=output, stderr=output, start_new_session=True,
                env=os.environ | {"NODE": name, "PYTHONPATH": path} | environment,
            )  # fmt: skip
        wait_until(lambda: _STARTED in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()

    def processor_seconds(self) -> float:
        """What all processes of the nodes have taken so far, also those that have ended."""
        seconds = 0.0
        for node in self._processes.values():
            root = psutil.Process(node.pid)
            for one in [root, *root.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    seconds += sum(one.cpu_times()[:4])  # with the children that it outlives
        return seconds

    def kill(self, name: str) -> None:
        """End a node with all its processes, as a power cut does."""
        process = self._processes.pop(name)
        family = [
            psutil.Process(process.pid),
            *psutil.Process(process.pid).children(recursive=True),
        ]
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.suspend()  # so that none notices the end of another
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGKILL)
        process.wait()
        psutil.wait_procs(family)

    def kill_all(self) -> None:
        for name in reversed(list(self._processes)):
            self.kill(name)


@contextmanager
def ray_nodes() -> Iterator[RayNodes]:
    """A head; it and what has joined it are gone after the `with` block."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # paths of sockets have to be short
    nodes = None
    try:
        nodes = RayNodes(folder)
        yield nodes
    finally:
        if nodes:
            nodes.kill_all()
        shutil.rmtree(folder, ignore_errors=True)
