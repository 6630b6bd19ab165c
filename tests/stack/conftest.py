"""One stack for the tests of this folder: Prefect's server on PostgreSQL, a process worker, all deployments."""

from collections.abc import Iterator

import pytest
from stacks import Stack, postgres


@pytest.fixture(scope="session")
def stack(tiny_student, tmp_path_factory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    with postgres(tmp_path_factory.mktemp("postgres")) as database:
        more = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database} if database else {}
        stack = Stack(folder, tiny_student, **more)
        stack.up()
        yield stack
        stack.down()
