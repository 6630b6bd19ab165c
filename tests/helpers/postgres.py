"""PostgreSQL as Debian packages it."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.polling import PATIENCE
from tests.helpers.servers import free_port, wait_until_open


@contextlib.contextmanager
def postgres() -> Iterator[str | None]:
    """A new PostgreSQL server of Debian's; its address for Prefect, or None where it is not installed.

    Its files are no test's: pytest closes the folder of all tests to other users whenever it is started, and the
    server runs as one.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        yield None
        return
    tools, port = found[-1].parent, free_port()
    user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
    with tempfile.TemporaryDirectory(prefix="cotpipe-postgres-") as folder:
        if user:
            shutil.chown(folder, user)
        data, log = Path(folder, "data"), Path(folder, "log")
        subprocess.run(
            [tools / "initdb", "-D", data, "-U", "cotpipe", "-A", "trust", "--no-sync"],
            check=True, capture_output=True, user=user, cwd="/",
        )  # fmt: skip
        command: list[str | Path] = [
            tools / "postgres", "-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1", "-k", folder, "-F",
        ]  # fmt: skip
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, user=user, cwd="/")
        try:
            wait_until_open(port, process)
            yield f"postgresql+asyncpg://cotpipe@127.0.0.1:{port}/postgres"
        finally:
            process.terminate()
            process.wait(timeout=PATIENCE)
