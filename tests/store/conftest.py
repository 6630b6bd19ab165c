"""Real S3 servers, one of each for all tests of a process."""

from collections.abc import Iterator

import pytest

from tests.helpers import s3


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3.rclone(tmp_path_factory.mktemp("rclone")) as address:
        yield address


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3.seaweed(tmp_path_factory.mktemp("seaweed")) as address:
        yield address
