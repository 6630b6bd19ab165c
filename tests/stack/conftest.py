"""One stack for the tests of this folder: Prefect's server on PostgreSQL behind a password, a worker, deployments."""

from collections.abc import Iterator

import pytest

from tests.helpers.postgres import postgres
from tests.helpers.stacks import Stack

PASSWORD = "admin:a-password-that-nobody-may-see"


@pytest.fixture(scope="session")
def stack(tiny_student, tmp_path_factory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    with postgres() as database:
        more = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database} if database else {}
        more |= {"PREFECT_SERVER_API_AUTH_STRING": PASSWORD, "PREFECT_API_AUTH_STRING": PASSWORD}
        stack = Stack(folder, tiny_student, **more)
        stack.up()
        yield stack
        stack.down()
