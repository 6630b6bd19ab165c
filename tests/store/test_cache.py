"""What an S3 server or the way to it may do wrong, and what then counts as damaged."""

import os
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from cotpipe.errors import RunError, TransientError
from cotpipe.progress import Silent
from cotpipe.recipe.files import load_recipe
from cotpipe.recipe.model import Recipe
from cotpipe.runs.doctor import examine
from cotpipe.runs.upkeep import Checked, verify
from cotpipe.settings import Settings
from cotpipe.steps.runner import StepRunner
from cotpipe.steps.step import Step
from cotpipe.store.artifacts import Store, open_store
from cotpipe.store.cache import Cache
from cotpipe.store.leases import Contender
from cotpipe.store.records import SHARDS, Record, Reference
from cotpipe.store.storage import FileInfo, LocalStorage, local_files
from cotpipe.store.training_states import TrainingStates
from tests.helpers.s3 import s3_settings
from tests.helpers.servers import BadDownloads, Counting, NoConditions

CONTENT = bytes(range(256)) * 4


def committed(
    server: str, folder: Path, address: str, content: bytes = CONTENT, kind: str = "stage1"
) -> Record:
    store = open_store(s3_settings(server, folder / "first", address))
    reference = Reference(kind=kind, fingerprint="a" * 32)
    with store.draft(reference) as draft:
        (draft.path / "weights").write_bytes(content)
        record = Record(
            kind=reference.kind, fingerprint=reference.fingerprint, attempt=draft.attempt, step_version=1, fields={},
            inputs={}, counts={}, files=[], versions={}, made_at="2026-01-01T00:00:00+00:00", seconds=0.0,
        )  # fmt: skip
        return store.commit(draft, record)


def read(store: Store, record: Record) -> bytes:
    return store.path(record, "weights").read_bytes()


@pytest.mark.parametrize("faults", [("cut",), ("flip",), ("cut", "flip")])
def test_a_bad_download_is_repeated_and_condemns_nothing(rclone, tmp_path, faults):
    address = f"s3://bucket/downloads-{'-'.join(faults)}"
    record = committed(rclone, tmp_path, address)
    with BadDownloads(rclone, faults) as proxy:
        store = open_store(s3_settings(proxy.address, tmp_path / "second", address))
        assert read(store, record) == CONTENT
        assert proxy.lost == [*faults]
        assert store.check(record.reference) == record


@pytest.mark.parametrize("content", [CONTENT, CONTENT * 5000], ids=["small", "large"])
def test_a_bad_download_during_verify_condemns_nothing_and_damage_does(rclone, tmp_path, content):
    address = f"s3://bucket/verified-{len(content)}"
    record = committed(rclone, tmp_path, address, content)
    with BadDownloads(rclone, ("flip",)) as proxy:
        store = open_store(s3_settings(proxy.address, tmp_path / "second", address))
        assert verify(store, lambda done, total: None) == [Checked(record.reference, [])]
        assert proxy.lost == ["flip"]
        assert store.find(record.reference) == record
        store.storage.replace(f"{record.folder}/weights", b"x" + content[1:])
        assert verify(store, lambda done, total: None) == [Checked(record.reference, ["weights"])]
        assert store.find(record.reference) is None


def test_a_bad_download_of_a_training_state_costs_no_step(rclone, tmp_path):
    address = "s3://bucket/states"
    with BadDownloads(rclone, ("flip", "cut")) as proxy:
        store = open_store(s3_settings(proxy.address, tmp_path / "cache", address))
        states = TrainingStates(store.storage, Reference(kind="stage1", fingerprint="a" * 32))
        (tmp_path / "state").mkdir()
        (tmp_path / "state" / "weights").write_bytes(CONTENT)
        states.save(100, tmp_path / "state")
        assert states.fetch_latest(tmp_path / "back")
        assert proxy.lost == ["flip", "cut"]
    assert (tmp_path / "back" / "weights").read_bytes() == CONTENT


def test_a_connection_that_cuts_everything_is_told_and_condemns_nothing(rclone, tmp_path):
    record = committed(rclone, tmp_path, "s3://bucket/cuts")
    with BadDownloads(rclone, ("cut",) * 100) as proxy:
        store = open_store(s3_settings(proxy.address, tmp_path / "second", "s3://bucket/cuts"))
        with pytest.raises(TransientError, match="weights: 3 downloads .*check the network"):
            read(store, record)
        assert store.check(record.reference) == record


def test_a_file_that_was_cut_off_in_the_cache_is_fetched_again(rclone, tmp_path):
    record = committed(rclone, tmp_path, "s3://bucket/cached")
    store = open_store(s3_settings(rclone, tmp_path / "second", "s3://bucket/cached"))
    path = store.path(record, "weights")
    path.write_bytes(CONTENT[:100])  # a power cut
    assert read(store, record) == CONTENT
    assert store.check(record.reference) == record


def test_many_artifacts_cost_one_request_each_and_their_records_none_the_second_time(
    rclone, tmp_path
):
    """Requests are what a command over thousands of artifacts on S3 takes its time for."""
    records = [committed(rclone, tmp_path, "s3://bucket/many", kind=f"stage{i}") for i in range(20)]
    with Counting(rclone) as proxy:
        for seen in ({"GET": 20}, {}):
            store = open_store(s3_settings(proxy.address, tmp_path / "cache", "s3://bucket/many"))
            proxy.requests.clear()
            assert store.records() == sorted(records, key=lambda record: record.kind)
            assert proxy.requests == Counter(GET=1) + Counter(seen)  # 1: the listing
            assert len(verify(store, lambda done, total: None)) == 20
            assert proxy.requests == Counter(GET=1) + Counter(seen) + Counter(GET=22)


def test_a_record_that_was_replaced_or_cut_off_in_the_cache_is_read_again(rclone, tmp_path):
    first = committed(rclone, tmp_path, "s3://bucket/records")
    store = open_store(s3_settings(rclone, tmp_path / "cache", "s3://bucket/records"))
    assert store.records() == [first]
    (copy,) = (tmp_path / "cache").rglob("listed/*")
    copy.write_bytes(copy.read_bytes()[:-1])  # a power cut
    assert store.records() == [first]
    store.mark_damaged(first, ["weights"])
    second = committed(rclone, tmp_path, "s3://bucket/records")
    assert first.attempt != second.attempt
    assert store.records() == [second]
    store.storage.remove(str(second.reference))
    assert store.records() == []


def test_without_a_folder_for_the_cache_a_store_is_still_listed(rclone, tmp_path, caplog):
    record = committed(rclone, tmp_path, "s3://bucket/uncached")
    (tmp_path / "cache").write_text("not a folder")
    store = open_store(s3_settings(rclone, tmp_path / "cache", "s3://bucket/uncached"))
    assert store.records() == [record]
    assert "set COTPIPE_CACHE to a writable folder" in caplog.text


def test_the_cache_is_not_measured_again_for_every_small_file(tmp_path, monkeypatch):
    """With thousands of entries, that would take longer than fetching them."""
    measured = []

    def measure(folder: Path) -> dict[str, FileInfo]:
        measured.append(folder)
        return local_files(folder)

    monkeypatch.setattr("cotpipe.store.cache.local_files", measure)
    cache = Cache(tmp_path, LocalStorage(tmp_path / "store"), max_bytes=10_000)
    for number in range(50):
        folder = cache.entry(f"shard/{number}/0", num_bytes=100)
        (folder / "file").write_bytes(bytes(100))
        cache.release(f"shard/{number}/0")
    assert len(measured) < 400  # measured for each, they were 1,275
    for number in range(50, 200):
        folder = cache.entry(f"shard/{number}/0", num_bytes=0)
        (folder / "file").write_bytes(bytes(100))
        cache.release(f"shard/{number}/0", num_written=100)
        assert sum(info.size for info in local_files(tmp_path).values()) <= 10_100


def fields(number: int, recipe: Recipe) -> dict[str, int]:
    return {"number": number}


def open_locks(folder: Path) -> int:
    """The number of lock files in a folder that this process holds open."""
    found = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    return sum(path.startswith(str(folder)) and path.endswith(".lock") for path in found)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files as Linux does")
def test_a_step_of_many_shards_keeps_few_files_open(rclone, tmp_path):
    """Neither one that makes them nor one, elsewhere, that reads them: systems allow 256 or 1,024."""
    seen = []

    def answer(work) -> dict[str, int]:
        (work.output / "weights").write_bytes(CONTENT)
        return {}

    shards = [Step(SHARDS, 1, (), partial(fields, number), answer) for number in range(20)]

    def merge(work) -> dict[str, int]:
        for path in work.shards(shards, "weights", lambda number: None):
            assert path.read_bytes() == CONTENT
            seen.append(open_locks(tmp_path))
        (work.output / "all").write_text("20")
        return {}

    for number in range(2):
        store = open_store(s3_settings(rclone, tmp_path / f"cache-{number}", "s3://bucket/shards"))
        step = Step("rationales", 1, (), partial(fields, number), merge)
        StepRunner(store, Settings(), Silent()).run(step, Recipe(), {})
        assert open_locks(tmp_path) == 0
    assert len(seen) == 40
    assert max(seen) <= 2  # the shard's, and the artifact's in the making


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "InvalidArgument"), (400, "InvalidRequest"), (400, "NotImplemented"), (501, "501")],
)
def test_a_server_that_refuses_conditional_writes_is_one_line_and_no_wait(
    rclone, tmp_path, status, code
):
    with NoConditions(rclone, status, code) as proxy:
        settings = s3_settings(proxy.address, tmp_path, f"s3://bucket/refuses-{code.lower()}")
        store = open_store(settings)
        with (
            pytest.raises(RunError, match=f"If-None-Match: {status} .*cotpipe doctor") as raised,
            Contender(store.storage, "stage1/" + "a" * 32, seconds=1).try_lease(),
        ):
            pass
        assert not isinstance(raised.value, TransientError)  # nothing tries it again
        assert "\n" not in str(raised.value)
        found = next(one for one in examine(load_recipe("demo"), settings) if one.name == "store")
        assert (found.state, "If-None-Match" in found.text) == ("fail", True)


@pytest.mark.parametrize("code", ["IncompleteBody", "BadDigest", "InvalidToken"])
def test_another_bad_request_is_not_blamed_on_conditional_writes(rclone, tmp_path, code):
    """A body that was cut off on its way is sent again; a server of another kind would not help."""
    with NoConditions(rclone, 400, code) as proxy:
        settings = s3_settings(proxy.address, tmp_path, f"s3://bucket/bad-{code.lower()}")
        store = open_store(settings)
        with (
            pytest.raises(TransientError, match=f"cannot be used: .*{code} it is") as raised,
            Contender(store.storage, "stage1/" + "a" * 32, seconds=1).try_lease(),
        ):
            pass
        assert "If-None-Match" not in str(raised.value)


def test_the_doctor_says_what_the_server_does_with_conditional_writes(rclone, seaweed, tmp_path):
    for server, state in ((rclone, "warn"), (seaweed, "ok")):
        settings = s3_settings(server, tmp_path, "s3://bucket/doctor")
        found = next(one for one in examine(load_recipe("demo"), settings) if one.name == "store")
        assert (found.state, "ignores If-None-Match" in found.text) == (state, state == "warn")
        assert open_store(settings).storage.sizes("") == {}
