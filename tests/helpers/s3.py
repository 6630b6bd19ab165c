"""Real S3 servers: one that is small, and one that knows conditional writes."""

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from cotpipe.settings import Settings
from tests.helpers.servers import BIN, free_port, wait_until_open

KEY, SECRET = "test-key", "test-secret-of-enough-length"


def s3_settings(
    endpoint: str, cache: Path, store: str = "s3://bucket/store", **changes: object
) -> Settings:
    values = {
        "store": store, "s3_endpoint_url": endpoint, "s3_region": "us-east-1", "s3_access_key_id": KEY,
        "s3_secret_access_key": SECRET, "cache": cache, "s3_timeout": 5,
    }  # fmt: skip
    return Settings.model_validate(values | changes)


@contextlib.contextmanager
def rclone(folder: Path) -> Iterator[str]:
    """The address of `rclone serve s3` with an empty bucket `bucket`."""
    port = free_port()
    (folder / "bucket").mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [
        BIN / "rclone",
        "serve",
        "s3",
        "--auth-key",
        f"{KEY},{SECRET}",
        "--addr",
        f"127.0.0.1:{port}",
        folder,
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until_open(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


@contextlib.contextmanager
def seaweed(folder: Path) -> Iterator[str]:
    """The address of a SeaweedFS, whose S3 knows conditional writes, with an empty bucket `bucket`."""
    s3, master, volume, filer = (free_port() for _ in range(4))
    actions = '["Admin", "Read", "Write", "List"]'
    (folder / "s3.json").write_text(
        f'{{"identities": [{{"name": "test", "actions": {actions}, '
        f'"credentials": [{{"accessKey": "{KEY}", "secretKey": "{SECRET}"}}]}}]}}'
    )
    command: list[str | Path] = [
        BIN / "weed", "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-master.port={master}",
        f"-volume.port={volume}", "-filer", f"-filer.port={filer}", "-s3", f"-s3.port={s3}",
        "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false",
        f"-s3.config={folder / 's3.json'}", "-volume.max=20", "-master.volumeSizeLimitMB=64",
        f"-master.port.grpc={free_port()}", f"-volume.port.grpc={free_port()}", f"-filer.port.grpc={free_port()}",
        f"-s3.port.grpc={free_port()}",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until_open(s3, process)
            _make_bucket(f"http://127.0.0.1:{s3}")
            yield f"http://127.0.0.1:{s3}"
        finally:
            process.kill()


def _make_bucket(address: str) -> None:
    import s3fs

    files = s3fs.S3FileSystem(
        key=KEY, secret=SECRET, endpoint_url=address, client_kwargs={"region_name": "us-east-1"}
    )
    for _ in range(100):
        try:
            files.mkdir("bucket")
        except OSError:  # it answers before its parts have found each other
            threading.Event().wait(0.2)
        else:
            return
    raise AssertionError("no bucket within 20 s")
