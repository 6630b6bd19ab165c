"""What the last task of a night writes down."""

import shutil

import pytest

from cotpipe.errors import TransientError
from cotpipe.report.gate import Margins
from cotpipe.runs.promotion import REGISTRY, ModelRegistry, Night, read_registry
from cotpipe.store.artifacts import Store
from cotpipe.store.leases import Contender
from cotpipe.store.records import Reference
from cotpipe.store.storage import LocalStorage
from tasks.nights import decide, describe
from tests.helpers.store_before import BEFORE


def test_a_night_that_lost_its_turn_while_its_machine_slept_promotes_nothing(tmp_path, monkeypatch):
    storage = LocalStorage(shutil.copytree(BEFORE / "store", tmp_path / "store"))
    monkeypatch.setenv("COTPIPE_STORE", storage.address)
    kinds = ("problems", "stage3", "evaluation-base", "evaluation-stage3")
    records = {kind: next(iter(Store(storage).records(kind))) for kind in kinds}
    artifacts = {kind: record.reference for kind, record in records.items()}
    compared = {"the student": artifacts["evaluation-base"]}
    seconds = [0.0]
    other = Contender(storage, REGISTRY, seconds=60, clock=lambda: seconds[0])
    with Contender(storage, REGISTRY, seconds=60).try_lease() as turn:
        assert turn
        with other.try_lease() as lease:
            assert lease is None
        seconds[0] = 61
        with other.try_lease() as lease:
            assert lease
        margins = Margins(accuracy=1, tokens=1, longest=100)
        with pytest.raises(TransientError, match="another run took over"):
            decide.fn("night-1", artifacts, "stage3", [], compared, margins, None, turn)
    assert read_registry(storage) == ModelRegistry()


def test_the_report_does_not_pass_the_corrections_of_all_nights_for_those_of_this_one():
    candidate = Reference(kind="stage3", fingerprint="1" * 32)
    night = Night(run_id="night-1", mining=None, candidate=candidate, promoted=False, why="worse")
    told = describe("Kept", night, ModelRegistry(nights=[night]), [], corrected=3)
    assert "Answers corrected by newer rows, in all files so far: 3" in told
    assert "orrected" not in describe("Kept", night, ModelRegistry(nights=[night]), [], corrected=0)
