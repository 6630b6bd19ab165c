"""A real vLLM with a real small model; collected only where vLLM is installed (`make test-engines`)."""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.vllm_server import VllmServer

collect_ignore_glob = [] if importlib.util.find_spec("vllm") else ["test_vllm_*.py"]
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct, as the demo trains it."""
    from cotpipe.progress import Silent
    from cotpipe.recipe.files import load_recipe
    from cotpipe.settings import Settings
    from cotpipe.steps import student
    from cotpipe.steps.runner import StepRunner
    from cotpipe.store.artifacts import open_store

    settings = Settings(store=str(tmp_path_factory.mktemp("student")))
    runner = StepRunner(open_store(settings), settings, Silent())
    return runner.store.path(runner.run(student.STEP, load_recipe("demo", []), {}).record, "model")


@pytest.fixture(scope="session")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    server = VllmServer(model, tmp_path_factory.mktemp("vllm") / "log")
    server.start()
    server.wait()
    yield server
    server.kill()
