"""A step whose output does not fit on the disk."""

import resource

import pytest

from cotpipe.errors import RunError
from cotpipe.store.artifacts import Store
from cotpipe.store.storage import LocalStorage


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
    from cotpipe.progress import Silent
    from cotpipe.recipe.model import Recipe
    from cotpipe.settings import Settings
    from cotpipe.steps.runner import StepRunner
    from cotpipe.steps.step import Step

    step = Step("problems", 1, (), lambda recipe: {}, lambda work: write(work.output / "file"))
    with pytest.raises(
        RunError, match=r"File too large.*COTPIPE_STORE.*finished steps are kept"
    ) as raised:
        StepRunner(store, Settings(), Silent()).run(step, Recipe(), {})
    assert "\n" not in str(raised.value)
    assert not [name for name in store.storage.sizes("") if name.endswith("record.json")]
