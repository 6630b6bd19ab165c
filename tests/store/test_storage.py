"""The same operations on a local disk and on two real S3 servers, one of them behind a proxy that loses requests."""

import gc
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cotpipe.errors import RunError, UserError
from cotpipe.settings import Settings
from cotpipe.store.artifacts import Store, open_storage, open_store
from cotpipe.store.records import Record, Reference
from cotpipe.store.storage import Storage
from cotpipe.store.training_states import TrainingStates
from tests.helpers.s3 import s3_settings
from tests.helpers.servers import FlakyProxy

REFERENCE = Reference(kind="stage1", fingerprint="a" * 32)


@pytest.fixture(params=["disk", "rclone", "seaweed", "flaky"])
def storage(request, tmp_path) -> Iterator[Storage]:
    if request.param == "disk":
        yield open_storage(Settings(store=str(tmp_path / "store")))
        return
    server = request.getfixturevalue("rclone" if request.param == "flaky" else request.param)
    address = f"s3://bucket/{request.node.name}".replace("[", "-").replace("]", "")
    if request.param == "flaky":
        with FlakyProxy(server, share=0.1, seed=1) as proxy:
            yield open_storage(
                s3_settings(proxy.address, tmp_path / "cache", address, s3_timeout=1)
            )
    else:
        yield open_storage(s3_settings(server, tmp_path / "cache", address))


def test_files_are_created_once_replaced_listed_and_removed(storage):
    storage.check()
    assert storage.read("a/x.json") is None
    assert storage.sizes("a") == {}
    assert storage.create("a/x.json", b"first")
    assert not storage.create("a/x.json", b"second")
    assert storage.read("a/x.json") == b"first"
    storage.replace("a/x.json", b"other")
    storage.replace("a/b/y", b"123456")
    storage.replace("ab", b"1")
    assert storage.read("a/x.json") == b"other"
    assert storage.sizes("a") == {"x.json": 5, "b/y": 6}
    assert storage.sizes("") == {"a/x.json": 5, "a/b/y": 6, "ab": 1}
    storage.remove("a/b")
    storage.remove("nothing")
    assert storage.sizes("a") == {"x.json": 5}
    storage.remove("a/x.json")
    assert storage.sizes("a") == {}
    assert storage.read("ab") == b"1"


def test_folders_go_there_and_back_in_parts(storage, tmp_path):
    source = tmp_path / "source"
    (source / "model").mkdir(parents=True)
    content = os.urandom(40 * 2**20 + 17)
    (source / "model" / "big").write_bytes(content)
    (source / "small").write_bytes(b"")
    storage.put_folder(source, "x/y")
    assert storage.sizes("x/y") == {"model/big": len(content), "small": 0}
    storage.fetch("x/y/model/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
    from cotpipe.store.storage import file_sha256

    assert storage.sha256("x/y/model/big") == file_sha256(tmp_path / "back")


def test_files_are_on_this_machine_or_read_through_a_filesystem(storage):
    storage.replace("a/x", b"content")
    path = storage.local_path("a/x")
    if path:
        assert path.read_bytes() == b"content"
        assert storage.filesystem is None
    else:
        assert storage.filesystem.cat_file(storage.location("a/x")) == b"content"


def test_a_disk_is_listed_while_others_write_and_remove(tmp_path):
    storage = open_storage(Settings(store=str(tmp_path)))
    over = threading.Event()

    def come_and_go(number: int) -> None:
        while not over.is_set():
            storage.replace(f"a/{number}/b/c/x", b"x")
            storage.remove(f"a/{number}")

    with ThreadPoolExecutor(3) as pool:
        for number in range(3):
            pool.submit(come_and_go, number)
        try:
            for _ in range(300):
                found = storage.sizes("")
                assert all(
                    size == 1 for name, size in found.items() if name.endswith("/x")
                )  # others are on their way
        finally:
            over.set()


@pytest.mark.parametrize("server", ["disk", "seaweed"])
def test_of_many_creators_one_wins(server, request, tmp_path):
    settings = (
        Settings(store=str(tmp_path / "store"))
        if server == "disk"
        else s3_settings(request.getfixturevalue("seaweed"), tmp_path, "s3://bucket/race")
    )
    storages = [open_storage(settings) for _ in range(8)]
    for round_ in range(4):
        with ThreadPoolExecutor(8) as pool:
            made = [
                pool.submit(one.create, f"r{round_}", str(number).encode())
                for number, one in enumerate(storages)
            ]
            won = [future.result() for future in made]
        assert sum(won) == 1
        assert storages[0].read(f"r{round_}") == str(won.index(True)).encode()


def make_store(storage, cache_folder, max_bytes=10**9) -> Store:
    return Store(storage, cache_folder, max_bytes)


def commit(store, reference=REFERENCE, size=1000) -> Record:
    with store.draft(reference) as draft:
        (draft.path / "model").mkdir()
        (draft.path / "model" / "weights").write_bytes(b"x" * size)
        (draft.path / "log").write_bytes(b"y")
        record = Record(
            kind=reference.kind, fingerprint=reference.fingerprint, attempt=draft.attempt, step_version=1, fields={},
            inputs={}, counts={}, files=[], versions={}, made_at="2026-01-01T00:00:00+00:00", seconds=0.0,
        )  # fmt: skip
        return store.commit(draft, record)


def found(store: Store, reference: Reference = REFERENCE) -> Record:
    record = store.find(reference)
    assert record
    return record


def test_an_artifact_is_found_and_read_on_a_machine_that_has_nothing(storage, tmp_path):
    commit(make_store(storage, tmp_path / "one"))
    other = make_store(storage, tmp_path / "two")
    record = found(other)
    assert (other.path(record, "model") / "weights").read_bytes() == b"x" * 1000
    fetched = [
        path.name
        for path in (tmp_path / "two").rglob("*")
        if path.is_file() and path.suffix != ".lock"
    ]
    assert fetched == ([] if storage.local_path("") else ["weights"])  # what is asked for alone
    for _ in range(2):  # from the store, and from what a machine has kept
        assert other.records() == [record]


def test_damage_is_found_at_the_latest_when_a_file_is_read(storage, tmp_path, caplog):
    record = commit(make_store(storage, tmp_path / "one"))
    storage.replace(f"{record.folder}/model/weights", b"z" * 1000)
    other = make_store(storage, tmp_path / "two")
    assert other.find(REFERENCE) == record  # a look reads no file
    assert not other.is_marked_damaged(record)
    found = other.check(REFERENCE)
    if found:  # only on S3, where a check is not worth fetching everything
        with pytest.raises(RunError, match="is damaged .*model/weights.*run again"):
            other.path(found, "model")
    assert other.find(REFERENCE) is other.check(REFERENCE) is None
    assert "model/weights" in caplog.text
    commit(other)
    assert other.find(REFERENCE).attempt != record.attempt


def test_a_truncated_file_is_found_by_a_look_and_marked_by_a_check(storage, tmp_path):
    store = make_store(storage, tmp_path / "one")
    record = commit(store)
    storage.replace(f"{record.folder}/model/weights", b"x" * 999)
    assert store.find(REFERENCE) is None
    assert not store.is_marked_damaged(record)
    assert store.check(REFERENCE) is None
    assert store.is_marked_damaged(record)


def test_the_cache_stays_within_its_bound_and_keeps_what_is_in_use(rclone, tmp_path):
    storage = open_storage(s3_settings(rclone, tmp_path, "s3://bucket/cache"))
    references = [Reference(kind="stage1", fingerprint=f"{number:032x}") for number in range(4)]
    for reference in references:
        commit(make_store(storage, tmp_path / "one"), reference, size=1000)
    folder = tmp_path / "two"
    for number, reference in enumerate(references[:3]):
        store = make_store(
            storage, folder, max_bytes=2500
        )  # each a process of its own, as far as locks go
        store.path(found(store, reference), "model")
        kept = {path.parent.parent.name.split("-")[1] for path in folder.rglob("weights")}
        assert kept == {
            one.fingerprint for one in references[max(number - 1, 0) : number + 1]
        }  # the two newest
        del store
        gc.collect()  # the process ends, and its locks with it
    holding = make_store(storage, folder, max_bytes=2500)
    used = holding.path(found(holding, references[3]), "model")
    for reference in references[:3]:
        store = make_store(storage, folder, max_bytes=2500)
        store.path(found(store, reference), "model")
        assert (used / "weights").exists()


def test_the_newest_whole_training_state_comes_back_on_an_empty_machine(storage, tmp_path):
    states = TrainingStates(storage, REFERENCE)
    assert not states.fetch_latest(tmp_path / "none")
    for step in (2, 4):
        source = tmp_path / f"checkpoint-{step}"
        source.mkdir()
        (source / "weights").write_text(f"after {step}")
        states.save(step, source)
    assert len(storage.sizes(f"{REFERENCE}/training-state")) == 2  # the newest alone
    assert states.fetch_latest(tmp_path / "back")
    assert (tmp_path / "back" / "weights").read_text() == "after 4"
    folder = next(
        name for name in storage.sizes(f"{REFERENCE}/training-state") if name.endswith("weights")
    )
    storage.replace(f"{REFERENCE}/training-state/{folder}", b"AFTER 4")
    assert not states.fetch_latest(tmp_path / "damaged")
    states.clear()
    assert storage.sizes(f"{REFERENCE}/training-state") == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"s3_secret_access_key": "wrong"}, "denies access.*AWS_ACCESS_KEY_ID"),
        ({"store": "s3://no-such-bucket/x"}, "no-such-bucket.*create the bucket"),
        (
            {"s3_endpoint_url": "http://127.0.0.1:9"},
            "cannot be used.*127.0.0.1:9.*COTPIPE_S3_ENDPOINT_URL",
        ),
    ],
)
def test_an_s3_store_that_cannot_be_used_is_one_clear_line(rclone, tmp_path, changes, message):
    with pytest.raises(UserError, match=message) as raised:
        open_store(s3_settings(rclone, tmp_path, **changes))
    assert "\n" not in str(raised.value)
    assert "test-secret" not in str(raised.value)
