"""A store that an earlier version has filled serves a run of this one."""

import shutil
from pathlib import Path

from cotpipe.runs.log import find_run
from cotpipe.store.storage import LocalStorage
from tests.helpers.flow_runs import cotpipe, cotpipe_process
from tests.helpers.store_before import BEFORE


def test_a_run_reuses_the_store_whole_and_its_earlier_run_can_be_read(tmp_path, monkeypatch):
    monkeypatch.chdir(BEFORE)  # recipes count the student's path in the report
    store = Path(shutil.copytree(BEFORE / "store", tmp_path / "store"))
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}
    done = cotpipe_process("run", "--recipe", "recipe.yaml", "--store", str(store))
    assert done.returncode == 0, done.stderr
    run = find_run(LocalStorage(store), "last")
    assert len(run.steps) == 16
    assert all(step.reused for step in run.steps.values())
    assert (
        before.items()
        <= {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}.items()
    )
    (earlier,) = (BEFORE / "store" / "runs").iterdir()
    shown = cotpipe("show", earlier.stem, "--store", str(store))
    assert shown.returncode == 0, shown.stderr
    assert "stage 3 against stage 2" in shown.stdout
