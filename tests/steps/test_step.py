"""A step that ends in the middle: its output does not fit on the disk, or the user interrupts it."""

import os
import resource
import signal
import threading

import duckdb
import pytest

from cotpipe.errors import RunError
from cotpipe.progress import Silent
from cotpipe.recipe.model import Recipe
from cotpipe.settings import Settings
from cotpipe.steps.runner import StepRunner
from cotpipe.steps.step import Step
from cotpipe.store.artifacts import Store
from cotpipe.store.storage import LocalStorage
from tests.helpers.polling import polls


@pytest.fixture
def store(tmp_path):
    return Store(LocalStorage(tmp_path / "store"))


def write_text(path):
    path.write_text("x" * 100_000)


def write_weights(path):
    import numpy
    from safetensors.numpy import save_file

    save_file({"weights": numpy.zeros(100_000)}, path)


@pytest.fixture
def nearly_full_disk():
    """No file can grow beyond 50 kB; a disk without room fails in the same calls."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("write", [write_text, write_weights])
def test_a_full_disk_is_told_in_one_line(store, write, nearly_full_disk):
    step = Step("problems", 1, (), lambda recipe: {}, lambda work: write(work.output / "file"))
    with pytest.raises(
        RunError, match=r"File too large.*COTPIPE_STORE.*finished steps are kept"
    ) as raised:
        StepRunner(store, Settings(), Silent()).run(step, Recipe(), {})
    assert "\n" not in str(raised.value)
    assert not [name for name in store.storage.sizes("") if name.endswith("record.json")]


def test_ctrl_c_in_a_query_is_an_interrupt(store):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it

    def query_for_seconds(work):
        with duckdb.connect() as database:
            database.execute("set enable_progress_bar = true")
            database.execute("set enable_progress_bar_print = false")
            threading.Thread(target=interrupt_when_busy, args=(database,), daemon=True).start()
            database.execute("select count(*) from range(1_000_000_000) where range % 7 = 3")
        return {}

    # Where it is in the middle of a piece of work, DuckDB sees the signal late, at the end of the query at last.
    def interrupt_when_busy(database):
        for _ in polls():
            if database.query_progress() > 0:
                os.kill(os.getpid(), signal.SIGINT)
                return

    step = Step("problems", 1, (), lambda recipe: {}, query_for_seconds)
    with pytest.raises(KeyboardInterrupt):
        StepRunner(store, Settings(), Silent()).run(step, Recipe(), {})
