"""One finished run of the whole flow with a tiny random student, which the tests of this folder look at."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flow_runs import TINY
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from prefect.testing.utilities import prefect_test_harness

from cotpipe.recipes import load_recipe
from flows.curriculum import curriculum


@pytest.fixture(scope="session")
def prefect() -> Iterator[None]:
    quiet = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None, PREFECT_LOGGING_TO_API_ENABLED: False}
    with prefect_test_harness(server_startup_timeout=120), temporary_settings(quiet):
        yield


@pytest.fixture(scope="session")
def finished(prefect, tiny_student, tmp_path_factory) -> Iterator[tuple[Path, dict]]:
    store = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("COTPIPE_STORE", str(store))
        yield store, curriculum(recipe=load_recipe(TINY, [f"student.model={tiny_student}"]))
