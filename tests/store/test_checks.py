"""Looking reads no file; a check hashes each file once per change, and remembers that over processes."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cotpipe.progress import Silent
from cotpipe.recipe.model import Recipe
from cotpipe.settings import Settings
from cotpipe.steps.runner import Outcome, StepRunner
from cotpipe.steps.step import Step
from cotpipe.store.artifacts import Store
from cotpipe.store.records import Record, Reference
from cotpipe.store.storage import LocalStorage

REFERENCE = Reference(kind="stage1", fingerprint="a" * 32)
FILES = ("log", "model/weights")


class CountingStorage(LocalStorage):
    """A local disk that says what was hashed, and what was written."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.hashed, self.created, self.lock = [], [], threading.Lock()

    def sha256(self, name):
        with self.lock:
            self.hashed.append(name.split("/", 3)[-1])
        return super().sha256(name)

    def create(self, name, data):
        self.created.append(name)
        return super().create(name, data)


@pytest.fixture
def record(tmp_path) -> Record:
    """A committed artifact of two files, old enough to have a history."""
    store = Store(LocalStorage(tmp_path / "store"))
    with store.draft(REFERENCE) as draft:
        (draft.path / "model").mkdir()
        (draft.path / "model" / "weights").write_bytes(b"x" * 1000)
        (draft.path / "log").write_bytes(b"y")
        committed = store.commit(
            draft,
            Record(
                kind=REFERENCE.kind, fingerprint=REFERENCE.fingerprint, attempt=draft.attempt, step_version=1,
                fields={}, inputs={}, counts={}, files=[], versions={}, made_at="2026-01-01T00:00:00+00:00",
                seconds=0.0,
            ),
        )  # fmt: skip
    for name in FILES:
        os.utime(store.path(committed, name), ns=(10**18, 10**18))
    return committed


@pytest.fixture
def weights(tmp_path, record) -> Path:
    return tmp_path / "store" / record.folder / "model" / "weights"


def opened(tmp_path, cache: str | None = "cache") -> Store:
    """The store as a new process has it."""
    return Store(CountingStorage(tmp_path / "store"), tmp_path / cache if cache else None)


def process(tmp_path: Path) -> subprocess.Popen:
    """A process that says `ready`, checks the artifact when it hears a line, and says what it has hashed."""
    program = f"""
import json, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_checks import REFERENCE, hashed, opened

store = opened(Path({str(tmp_path)!r}))
print("ready", flush=True)
sys.stdin.readline()
assert store.check(REFERENCE)
print(json.dumps(hashed(store)))
"""
    return subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def hashed(store: Store) -> list[str]:
    """What was hashed since the last call."""
    found = sorted(vars(store.storage)["hashed"])
    vars(store.storage)["hashed"].clear()
    return found


def change(path: Path) -> None:
    """Other bytes in the same file, as many as before."""
    with path.open("r+b") as file:
        file.write(b"X")
    os.utime(path, ns=(10**18 + 1, 10**18 + 1))


def replace(path: Path) -> None:
    """Another file with the same name, size and modification time."""
    other = path.with_name("other")
    other.write_bytes(b"z" * path.stat().st_size)
    os.utime(other, ns=(10**18, 10**18))
    other.replace(path)


def truncate(path: Path) -> None:
    os.truncate(path, 10)


def test_looking_hashes_and_marks_nothing(tmp_path, record, weights):
    store = opened(tmp_path)
    assert store.find(REFERENCE) == record
    change(weights)
    assert store.find(REFERENCE) == record  # its size is right, and a look reads no file
    truncate(weights)
    assert store.find(REFERENCE) is None
    assert store.records() == [record]
    assert hashed(store) == vars(store.storage)["created"] == []
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("cache", ["cache", None])
def test_each_file_is_hashed_once(tmp_path, record, cache):
    store = opened(tmp_path, cache)
    assert store.check(REFERENCE) == record
    assert hashed(store) == [*FILES]
    assert store.check(REFERENCE) == record
    assert hashed(store) == []


def test_processes_that_check_at_once_agree_and_the_next_hashes_nothing(tmp_path, record):
    first, second = process(tmp_path), process(tmp_path)
    for one in (first, second):
        assert one.stdout.readline() == "ready\n"
    for one in (first, second):
        one.stdin.write("go\n")
        one.stdin.flush()
    assert all(set(json.loads(one.communicate()[0])) <= {*FILES} for one in (first, second))
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len(kept) == 1  # no half file is left
    assert json.loads(process(tmp_path).communicate("go\n")[0].split("\n")[1]) == []


def test_what_was_checked_of_another_store_does_not_count(tmp_path, record):
    opened(tmp_path).check(REFERENCE)
    (tmp_path / "store").rename(tmp_path / "moved")
    other = Store(CountingStorage(tmp_path / "moved"), tmp_path / "cache")
    assert other.check(REFERENCE)
    assert hashed(other) == [*FILES]


def test_what_is_touched_is_hashed_again_and_alone(tmp_path, record, weights):
    opened(tmp_path).check(REFERENCE)
    os.utime(weights)
    store = opened(tmp_path)
    assert store.check(REFERENCE) == record
    assert hashed(store) == ["model/weights"]
    assert store.check(REFERENCE)
    assert hashed(store) == []
    assert opened(tmp_path).check(REFERENCE)


@pytest.mark.parametrize("damage", [change, replace, truncate, Path.unlink])
@pytest.mark.parametrize("cache", ["cache", None])
def test_a_checked_file_that_is_damaged_later_is_found_and_marked(
    tmp_path, record, weights, damage, cache, caplog
):
    store = opened(tmp_path, cache)
    assert store.check(REFERENCE)
    damage(weights)
    later = store if cache is None else opened(tmp_path)
    assert later.check(REFERENCE) is None
    assert later.is_marked_damaged(record)
    assert "model/weights" in caplog.text


def test_verify_hashes_everything_whatever_was_checked(tmp_path, record, weights):
    store = opened(tmp_path)
    store.check(REFERENCE)
    assert hashed(store) == [*FILES]
    assert store.damaged_files(record) == []
    assert hashed(store) == [*FILES]
    before = weights.stat()
    weights.write_bytes(b"z" * 1000)
    os.utime(
        weights, ns=(before.st_atime_ns, before.st_mtime_ns)
    )  # a disk that forgets changes no time
    assert store.check(REFERENCE) == record
    assert store.damaged_files(record) == ["model/weights"]


def test_a_verified_artifact_is_not_hashed_when_it_is_used(tmp_path, record):
    opened(tmp_path).damaged_files(record)
    store = opened(tmp_path)
    assert store.check(REFERENCE) == record
    assert hashed(store) == []


def test_a_broken_file_in_the_cache_is_written_anew(tmp_path, record):
    opened(tmp_path).check(REFERENCE)
    (kept,) = (tmp_path / "cache" / "checked").glob("*/*.json")
    assert kept.name == f"stage1-{'a' * 32}-{record.attempt}.json"
    whole = json.loads(kept.read_text())
    for content in (b"", b"{", b'{"log": [1]}', b"[]", b"\xff"):
        kept.write_bytes(content)
        store = opened(tmp_path)
        assert store.check(REFERENCE) == record
        assert hashed(store) == [*FILES]
        assert json.loads(kept.read_text()) == whole


def test_a_cache_that_cannot_be_used_costs_time_alone(tmp_path, record, weights, caplog):
    (tmp_path / "cache").write_text(
        "a file where the folder should be; a read-only one fails alike"
    )
    store = opened(tmp_path)
    assert store.check(REFERENCE) == store.check(REFERENCE) == record
    assert hashed(store) == [*FILES]
    assert len(caplog.records) == 1
    assert "COTPIPE_CACHE" in caplog.text
    change(weights)
    assert store.check(REFERENCE) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("used_before", [False, True])
def test_a_cache_that_is_read_only_costs_time_alone(tmp_path, record, used_before):
    (tmp_path / "cache").mkdir()
    if used_before:
        opened(tmp_path).check(REFERENCE)
    for path in [tmp_path / "cache", *(tmp_path / "cache").rglob("*")]:
        path.chmod(0o500)
    store = opened(tmp_path)
    assert store.check(REFERENCE) == record
    assert hashed(store) == ([] if used_before else [*FILES])


def test_a_step_is_checked_when_it_is_reused_and_made_again_where_it_is_damaged(tmp_path):
    step = Step("problems", 1, (), lambda recipe: {}, write_output)
    storage = CountingStorage(tmp_path / "store")

    def run() -> Outcome:
        store = Store(storage, tmp_path / "cache")
        return StepRunner(store, Settings(), Silent()).run(step, Recipe(), {})

    made = run()
    assert storage.hashed == []
    assert run().reused
    assert storage.hashed == ["file"]
    assert run().reused
    assert storage.hashed == ["file"]
    (tmp_path / "store" / made.record.folder / "file").write_text("TEXT")
    again = run()
    assert not again.reused
    assert again.record.attempt != made.record.attempt


def write_output(work) -> dict[str, int]:
    (work.output / "file").write_text("text")
    os.utime(work.output / "file", ns=(10**18, 10**18))
    return {}
