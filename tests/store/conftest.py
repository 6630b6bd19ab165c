"""Real S3 servers."""

import subprocess
from collections.abc import Iterator

import pytest
from servers import BIN, KEY, SECRET, free_port, make_bucket, wait_until_open


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `rclone serve s3` with an empty bucket `bucket`."""
    folder, port = tmp_path_factory.mktemp("s3"), free_port()
    (folder / "bucket").mkdir()
    command = [BIN / "rclone", "serve", "s3", "--auth-key", f"{KEY},{SECRET}", "--addr", f"127.0.0.1:{port}", folder]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        wait_until_open(port, process)
        yield f"http://127.0.0.1:{port}"
        process.kill()


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a SeaweedFS, whose S3 knows conditional writes, with an empty bucket `bucket`."""
    folder = tmp_path_factory.mktemp("seaweed")
    s3, master, volume, filer = (free_port() for _ in range(4))
    actions = '["Admin", "Read", "Write", "List"]'
    (folder / "s3.json").write_text(
        f'{{"identities": [{{"name": "test", "actions": {actions}, '
        f'"credentials": [{{"accessKey": "{KEY}", "secretKey": "{SECRET}"}}]}}]}}'
    )
    command = [
        BIN / "weed", "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-master.port={master}",
        f"-volume.port={volume}", "-filer", f"-filer.port={filer}", "-s3", f"-s3.port={s3}",
        "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false",
        f"-s3.config={folder / 's3.json'}", "-volume.max=20", "-master.volumeSizeLimitMB=64",
        f"-master.port.grpc={free_port()}", f"-volume.port.grpc={free_port()}", f"-filer.port.grpc={free_port()}",
        f"-s3.port.grpc={free_port()}",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_until_open(s3, process)
        make_bucket(f"http://127.0.0.1:{s3}")
        yield f"http://127.0.0.1:{s3}"
        process.kill()
