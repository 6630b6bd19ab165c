"""A Prefect server for all flows of a test session, and its empty database for servers that a test starts."""

import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import httpx

from tests.helpers.polling import polls
from tests.helpers.servers import free_port
from tests.helpers.sharing import shared_folder, start_server

_EMPTY = "empty.db"


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
                break
        except httpx.TransportError:
            continue
    else:
        raise AssertionError("Prefect's server did not start")
    with (
        closing(sqlite3.connect(folder / "prefect.db")) as made,
        closing(sqlite3.connect(folder / _EMPTY)) as empty,
    ):
        made.backup(empty)
    return address


def make_prefect_home(folder: Path) -> Path:
    """A folder for PREFECT_HOME with an empty database."""
    folder.mkdir()
    shutil.copy(shared_folder("prefect") / _EMPTY, folder / "prefect.db")
    return folder
