"""A real vLLM with a real small model; collected only where vLLM is installed (`make test-engines`)."""

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from servers import free_port

collect_ignore_glob = [] if importlib.util.find_spec("vllm") else ["test_*.py"]
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
KEY = "a-key-that-nobody-may-see"


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct, as the demo trains it."""
    from cotpipe.curriculum import STEPS
    from cotpipe.recipes import load_recipe
    from cotpipe.settings import Settings
    from cotpipe.steps.step import Silent, StepRunner
    from cotpipe.store import open_store

    settings = Settings(store=str(tmp_path_factory.mktemp("student")))
    runner = StepRunner(open_store(settings), settings, Silent())
    return runner.store.path(runner.run(STEPS["student"], load_recipe("demo", []), {}).record, "model")


class VllmServer:
    """vLLM's own server on a port of its own; it can be killed and started again."""

    def __init__(self, model: Path, log: Path) -> None:
        self.port, self._model, self._log = free_port(), model, log
        self.root = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [
            sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", self._model, "--port", str(self.port),
            "--served-model-name", "smol", "--max-model-len", "512", "--max-num-seqs", "32", "--dtype", "bfloat16",
            "--enforce-eager", "--no-enable-chunked-prefill", "--api-key", KEY, "--host", "127.0.0.1",
        ]  # fmt: skip
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def wait(self) -> None:
        for _ in range(600):
            assert self.process.poll() is None, self._log.read_text()[-2000:]
            try:
                if httpx.get(f"{self.root}/health").is_success:
                    return
            except httpx.TransportError:
                threading.Event().wait(0.5)
        raise AssertionError("vLLM's server did not start within 300 s")

    def kill(self) -> None:
        """SIGKILL to the server and its engine."""
        os.killpg(self.process.pid, 9)
        self.process.wait()


@pytest.fixture(scope="session")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    server = VllmServer(model, tmp_path_factory.mktemp("vllm") / "log")
    server.start()
    server.wait()
    yield server
    server.kill()
