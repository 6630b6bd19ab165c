"""Leases: one run works, the others wait; no clock but one's own decides who is dead."""

import logging
import subprocess
import sys
import threading

import pytest

from cotpipe.errors import TransientError
from cotpipe.progress import Silent
from cotpipe.recipe.model import Recipe
from cotpipe.settings import Settings
from cotpipe.steps.runner import StepRunner
from cotpipe.steps.step import Step
from cotpipe.store.artifacts import Store, open_storage
from cotpipe.store.leases import Contender, Lease, holder, lease_unless_alive
from cotpipe.store.storage import LocalStorage, Storage
from tests.helpers.polling import polls
from tests.helpers.repository import ROOT
from tests.helpers.s3 import s3_settings

FOLDER = "stage1/" + "a" * 32


class Clock:
    """Somebody's own seconds."""

    def __init__(self, start: float = 0.0) -> None:
        self.seconds = start

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture(params=["disk", "rclone", "seaweed"])
def storage(request, tmp_path) -> Storage:
    if request.param == "disk":
        return LocalStorage(tmp_path / "store")
    address = f"s3://bucket/{request.node.name}".replace("[", "-").replace("]", "")
    server = request.getfixturevalue(request.param)
    return open_storage(s3_settings(server, tmp_path / "cache", address))


def elsewhere(storage: Storage, beat: int = 0, number: int = 1) -> str:
    """Write the lease of a holder on another machine; its name."""
    name = f"{FOLDER}/lease-{number}.json"
    lease = Lease(owner="f" * 32, beat=beat, host="elsewhere", pid=1)
    storage.replace(name, lease.model_dump_json().encode())
    return name


def test_a_lease_is_held_by_one_and_free_after_it(storage):
    first, second = (Contender(storage, FOLDER, seconds=60) for _ in range(2))
    with first.try_lease() as held:
        assert held
        held.confirm()
        assert holder(storage, FOLDER)
        with second.try_lease() as other:
            assert other is None
    assert storage.sizes(FOLDER) == {}
    with second.try_lease() as held:
        assert held
    assert storage.sizes(FOLDER) == {}


def test_a_holder_elsewhere_keeps_its_lease_while_it_counts_and_loses_it_by_silence_alone(storage):
    clock = Clock(start=10**9)  # that machine's clock may say anything
    contender = Contender(storage, FOLDER, seconds=60, clock=clock)
    for beat in range(4):
        elsewhere(storage, beat)
        with contender.try_lease() as held:
            assert held is None
        clock.seconds += 59
    with contender.try_lease() as held:
        assert held is None
    clock.seconds += 2
    with contender.try_lease() as held:
        assert held
        assert set(storage.sizes(FOLDER)) == {"lease-2.json"}


def test_who_comes_later_watches_for_the_whole_time_itself(storage):
    elsewhere(storage)
    clock = Clock()
    first = Contender(storage, FOLDER, 60, clock)
    with first.try_lease():
        clock.seconds += 59
    late = Contender(storage, FOLDER, 60, clock)
    clock.seconds += 59
    with late.try_lease() as held:
        assert held is None


@pytest.mark.parametrize("content", [b"", b"{", b'{"expires_at": 1.0}'])
def test_a_torn_lease_is_watched_like_any_other(tmp_path, content):
    storage, clock = LocalStorage(tmp_path), Clock()
    storage.replace(f"{FOLDER}/lease-1.json", content)
    contender = Contender(storage, FOLDER, 60, clock)
    with contender.try_lease() as held:
        assert held is None
    clock.seconds += 60
    with contender.try_lease() as held:
        assert held


def test_a_holder_renews_until_it_is_displaced_and_then_stops(tmp_path):
    storage = LocalStorage(tmp_path)
    with Contender(storage, FOLDER, seconds=0.1).try_lease() as held:
        for _ in polls():
            if holder(storage, FOLDER).beat >= 2:
                break
        held.require()
        elsewhere(storage, number=2)  # it was suspended, and another machine took over
        with pytest.raises(TransientError, match="another run took over its lease; run again"):
            held.confirm()
        for _ in polls():
            try:
                held.require()  # the heartbeat notices, too
            except TransientError:
                break
    assert set(storage.sizes(FOLDER)) == {"lease-2.json"}  # it leaves the other's alone


def test_a_holder_of_this_machine_that_was_killed_is_not_waited_for(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from cotpipe.store.leases import Contender\n"
        "from cotpipe.store.storage import LocalStorage\n"
        "with Contender(LocalStorage(Path(sys.argv[1])), sys.argv[2], 3600).try_lease() as held:\n"
        "    print(bool(held), flush=True); time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), FOLDER], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"True\n"
    contender = Contender(LocalStorage(tmp_path), FOLDER, seconds=3600)
    with contender.try_lease() as held:
        assert held is None
    process.kill()
    process.wait()
    with contender.try_lease() as held:
        assert held


def test_a_night_waits_for_a_silent_holder_and_gives_way_to_a_live_one(tmp_path):
    storage = LocalStorage(tmp_path)
    elsewhere(storage)
    with lease_unless_alive(storage, FOLDER, seconds=0.3) as held:
        assert held
    with (
        Contender(storage, FOLDER, seconds=0.3).try_lease(),
        lease_unless_alive(storage, FOLDER, seconds=60) as second,
    ):
        assert second is None


def test_a_displaced_run_commits_nothing_and_its_files_stay_until_they_are_old(tmp_path, caplog):
    """Two machines at work on one artifact: the one that lost its lease ends with one line."""
    caplog.set_level(logging.ERROR)
    store = Store(LocalStorage(tmp_path / "store"), tmp_path / "cache")
    begun, go_on = threading.Event(), threading.Event()

    def slow(work) -> dict[str, int]:
        (work.output / "file").write_text("slow")
        begun.set()
        assert go_on.wait(60)
        return {}

    def made(run) -> Step:
        return Step("problems", 1, (), lambda recipe: {}, run)

    failed: list[BaseException] = []

    def first() -> None:
        try:
            StepRunner(store, Settings(lease_seconds=60), Silent()).run(made(slow), Recipe(), {})
        except TransientError as error:
            failed.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(60)
    (lease,) = tmp_path.glob("store/problems/*/lease-1.json")
    folder = lease.parent
    # The first machine is suspended; a second one has watched its lease for long enough.
    lease.unlink()

    def quick(work) -> dict[str, int]:
        (work.output / "file").write_text("quick")
        return {}

    outcome = StepRunner(store, Settings(), Silent()).run(made(quick), Recipe(), {})
    (theirs,) = {path.parent.name for path in folder.glob("*/file")} - {outcome.record.attempt}
    assert (folder / theirs / "file").read_text() == "slow"
    go_on.set()
    thread.join()
    assert "took over its lease" in str(failed[0])
    assert store.check(outcome.reference) == outcome.record
