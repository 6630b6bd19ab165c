"""Shared by the tests: a tiny student, Prefect, one finished run of the whole flow, and the real data where it is at hand."""

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cotpipe.recipe.files import load_recipe
from cotpipe.steps.runner import StepResult
from tests.helpers.flow_runs import TINY
from tests.helpers.prefect_server import start_prefect
from tests.helpers.scheduling import LONGEST, SharedServersTogether
from tests.helpers.sharing import close_shared_folder, once, open_shared_folder, shared_folder
from tests.helpers.students import save_talker, save_tiny_student

gc.disable()  # until all tests are imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are tiny, and tests run side by side
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
_CACHE = tempfile.TemporaryDirectory(prefix="cotpipe-tests-")
os.environ["COTPIPE_CACHE"] = _CACHE.name  # not the user's; a worker of xdist has its own

REAL_DATA = Path(os.environ.get("COTPIPE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    if not REAL_DATA.is_dir():
        pytest.skip("the real GSM8K data is not at hand (COTPIPE_TEST_DATA)")
    return REAL_DATA


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(
        config, "workerinput"
    ):  # the session's first process, not one of xdist's workers
        open_shared_folder()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        close_shared_folder()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SharedServersTogether:
    return SharedServersTogether(config, log)


def pytest_collection_finish() -> None:
    gc.freeze()  # what the tests import stays: it is not looked through again and again
    gc.enable()


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # DuckDB complains of what it finds alive at the end


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests come first, then the rooms of long ones: no process ends with one while others idle."""
    rooms = {"flows", "training", "tasks", "store"}
    items.sort(key=lambda item: (item.path.stem not in LONGEST, not rooms & set(item.path.parts)))


@pytest.fixture(scope="session")
def tiny_student() -> Path:
    return Path(once("student", save_tiny_student))


@pytest.fixture(scope="session")
def talker(tiny_student) -> Path:
    """The tiny student, which says the same to every question (`students.SAID`)."""
    return Path(once("talker", lambda folder: save_talker(folder, tiny_student)))


@pytest.fixture(scope="session")
def prefect() -> Iterator[str]:
    """Flows of this process go to the session's Prefect server; its address, for other processes."""
    import prefect.context
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_LOGGING_TO_API_ENABLED,
        temporary_settings,
    )

    address = once("prefect", start_prefect)
    quiet = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None, PREFECT_LOGGING_TO_API_ENABLED: False}
    with temporary_settings({PREFECT_API_URL: address, **quiet}):
        # Threads, and what is sent at the end of the process, know no settings but these.
        settings = prefect.context.SettingsContext.get()
        assert settings
        prefect.context.GLOBAL_SETTINGS_CONTEXT = settings
        yield address


@pytest.fixture(scope="session")
def finished(prefect, tiny_student) -> tuple[Path, dict[str, StepResult]]:
    """A store with one finished run of the whole flow with the tiny student, to be read only; its results."""

    def run(folder: Path) -> dict[str, Any]:
        from flows.curriculum import curriculum

        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("COTPIPE_STORE", str(folder))
            results = curriculum(recipe=load_recipe(TINY, [f"student.model={tiny_student}"]))
            return {kind: result.model_dump(mode="json") for kind, result in results.items()}

    results = once("finished", run)
    return shared_folder("finished"), {
        kind: StepResult.model_validate(result) for kind, result in results.items()
    }


@pytest.fixture
def copied(finished, prefect, tmp_path, monkeypatch) -> Path:
    """A copy of the finished run's store, which is then the store of this test's flows and commands."""
    monkeypatch.setenv("PREFECT_API_URL", prefect)
    folder = shutil.copytree(finished[0], tmp_path / "store")
    monkeypatch.setenv("COTPIPE_STORE", str(folder))
    return folder
