"""vLLM's own server with a real small model."""

import os
import subprocess
import sys
from pathlib import Path

import httpx

from tests.helpers.polling import polls
from tests.helpers.servers import free_port

KEY = "a-key-that-nobody-may-see"


class VllmServer:
    """vLLM's own server on a port of its own; it can be killed and started again."""

    def __init__(self, model: Path, log: Path) -> None:
        self.port, self._model, self._log = free_port(), model, log
        self.root = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        command: list[str | Path] = [
            sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", self._model, "--port", str(self.port),
            "--served-model-name", "smol", "--max-model-len", "512", "--max-num-seqs", "32", "--dtype", "float32",
            "--enforce-eager", "--no-enable-chunked-prefill", "--api-key", KEY, "--host", "127.0.0.1",
        ]  # fmt: skip
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def wait(self) -> None:
        for _ in polls():
            assert self.process.poll() is None, self._log.read_text()[-2000:]
            try:
                if httpx.get(f"{self.root}/health").is_success:
                    return
            except httpx.TransportError:
                continue
        raise AssertionError("vLLM's server did not start")

    def kill(self) -> None:
        """SIGKILL to the server and its engine."""
        os.killpg(self.process.pid, 9)
        self.process.wait()
