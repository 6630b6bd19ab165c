"""What `cotpipe up` keeps under PREFECT_HOME: processes it has started, and its server's password."""

import contextlib
import os
import secrets
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from pydantic import BaseModel, SecretStr

from cotpipe.errors import UserError


class Process(BaseModel):
    """A process started by `up`, as recorded in a file."""

    pid: int
    created: float  # the pid may have been reused since
    address: str  # API address of the server

    def find(self) -> psutil.Process | None:
        """The process if it still runs, else None."""
        try:
            process = psutil.Process(self.pid)
            is_it = abs(process.create_time() - self.created) < 1
            return process if is_it and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    def listens(self) -> bool:
        """Whether this process, or one that it has started, listens on the port of its address.

        Whoever else sits on that port, another program or user, is not to be told the password.
        """
        process = self.find()
        if process is None:
            return False
        try:
            sockets = [
                each.net_connections("tcp") for each in (process, *process.children(recursive=True))
            ]
        except psutil.NoSuchProcess:  # one of them is just ending
            return False
        return any(
            one.status == psutil.CONN_LISTEN and one.laddr.port == urlsplit(self.address).port
            for each in sockets
            for one in each
        )


def folder() -> Path:
    """The directory of process records, logs and the password."""
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    return home / "cotpipe"


def record_of(name: str) -> Path:
    """The file that records the process `name`: `server` or `worker`."""
    return folder() / f"{name}.json"


def remembered(name: str) -> Process | None:
    """The process `name` as `up` recorded it; it may have ended since."""
    path = record_of(name)
    return Process.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None


def password_file() -> Path:
    """The file with user and password of the server that `up` starts; only its owner may read it."""
    return folder() / "password"


def kept_password() -> SecretStr | None:
    """User and password (`admin:...`) of the server that `up` starts; None before its first start.

    Raises `UserError` if the file holds something else.
    """
    path = password_file()
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8").strip()
    if ":" not in text:
        raise UserError(f"{path} holds no password; remove it, then: cotpipe down; cotpipe up")
    return SecretStr(text)


def make_password() -> SecretStr:
    """Make and keep a password; if another `up` is faster at the same moment, its password counts.

    The file appears with its content: neither a crash nor another `up` ever finds it empty.
    """
    folder().mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=folder()) as draft:  # mode 0600
        draft.write(f"admin:{secrets.token_urlsafe(24)}")
        draft.flush()
        os.fsync(draft.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft.name, password_file())
    kept = kept_password()
    assert kept
    return kept


def log_in() -> None:
    """Use the kept password if PREFECT_API_URL is the server that `up` has started and it listens.

    No other server is ever told this password. A password in the environment goes before it.
    """
    if os.environ.get("PREFECT_API_AUTH_STRING") or os.environ.get("PREFECT_API_KEY"):
        return
    server = remembered("server")
    if server and server.address == os.environ.get("PREFECT_API_URL") and server.listens():
        password = kept_password()
        if password:
            os.environ["PREFECT_API_AUTH_STRING"] = password.get_secret_value()
