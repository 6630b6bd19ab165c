"""What `cotpipe up` keeps under PREFECT_HOME: processes it has started, and its server's password."""

import os
import secrets
from pathlib import Path

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
            return (
                process
                if abs(process.create_time() - self.created) < 1 and process.is_running()
                else None
            )
        except psutil.NoSuchProcess:
            return None


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
    """Make and keep a password; raises `FileExistsError` if there is one."""
    text = f"admin:{secrets.token_urlsafe(24)}"
    folder().mkdir(parents=True, exist_ok=True)
    file = os.open(password_file(), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "w", encoding="utf-8") as stream:
        stream.write(text)
    return SecretStr(text)


def log_in() -> None:
    """Use the kept password if PREFECT_API_URL is the server that `up` has started and it runs.

    No other server is ever told this password. A password in the environment goes before it.
    """
    if os.environ.get("PREFECT_API_AUTH_STRING") or os.environ.get("PREFECT_API_KEY"):
        return
    server = remembered("server")
    if server and server.address == os.environ.get("PREFECT_API_URL") and server.find():
        password = kept_password()
        if password:
            os.environ["PREFECT_API_AUTH_STRING"] = password.get_secret_value()
