"""A Prefect server for all flows of a test session."""

import sys
from pathlib import Path

import httpx

from tests.helpers.polling import polls
from tests.helpers.servers import free_port
from tests.helpers.sharing import start_server


def start_prefect(folder: Path) -> str:
    """Start Prefect's server with a database in the folder; returns the address of its API."""
    port = free_port()
    address = f"http://127.0.0.1:{port}/api"
    serve = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port), "--no-ui"]
    process = start_server(folder, serve, PREFECT_HOME=str(folder), PREFECT_API_URL=address)
    for _ in polls():
        assert process.poll() is None, (folder / "server.log").read_text()
        try:
            if httpx.get(f"{address}/health").is_success:
                return address
        except httpx.TransportError:
            continue
    raise AssertionError("Prefect's server did not start")
