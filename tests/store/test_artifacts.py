import json
import os
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cotpipe.errors import RunError, TransientError, UserError
from cotpipe.store.artifacts import LEFTOVERS_ARE_KEPT, Store
from cotpipe.store.records import Record, Reference, StoredFile, fingerprint_of
from cotpipe.store.storage import LocalStorage

REFERENCE = Reference(kind="problems", fingerprint="f" * 32)


def record(**changes):
    values = {
        "kind": "problems", "fingerprint": "f" * 32, "attempt": "0" * 8, "step_version": 1, "fields": {}, "inputs": {},
        "counts": {}, "files": [], "versions": {}, "made_at": "2026-01-01T00:00:00+00:00", "seconds": 0.0,
    }  # fmt: skip
    return Record(**values | changes)


@pytest.fixture
def store(tmp_path):
    return Store(LocalStorage(tmp_path / "store"))


def commit(store, text="data", reference=REFERENCE):
    with store.draft(reference) as draft:
        (draft.path / "model").mkdir()
        (draft.path / "model" / "weights").write_text(text)
        return store.commit(draft, record(fingerprint=reference.fingerprint))


def weights(store):
    return store.path(store.find(REFERENCE), "model/weights").read_text()


def test_committed_is_found_whole(store):
    assert store.find(REFERENCE) is None
    commit(store)
    found = store.find(REFERENCE)
    assert [(file.path, file.size) for file in found.files] == [("model/weights", 4)]
    assert weights(store) == "data"
    assert (store.path(found, "model") / "weights").read_text() == "data"


def test_a_power_cut_after_a_commit_loses_no_file_of_it(store, monkeypatch):
    """The record may be on the disk only after everything that it names."""
    flushed, link, fsync = [], os.link, os.fsync

    def linked(source, target):
        flushed.append(Path(target).name)
        link(source, target)

    def synced(file):
        flushed.append(Path(os.readlink(f"/proc/self/fd/{file}")).name)
        fsync(file)

    monkeypatch.setattr(os, "link", linked)
    monkeypatch.setattr(os, "fsync", synced)
    attempt = commit(store).attempt
    order = [name.rsplit(".", 1)[0] if name.startswith(".record") else name for name in flushed]
    recorded = order.index("record.json")
    assert {"weights", "model", attempt, REFERENCE.fingerprint, "problems", ".record.json"} <= set(
        order[:recorded]
    )
    assert REFERENCE.fingerprint in order[recorded:]


def test_a_failed_draft_leaves_nothing(store):
    with pytest.raises(RuntimeError), store.draft(REFERENCE) as draft:
        (draft.path / "half").write_text("x")
        raise RuntimeError
    assert store.find(REFERENCE) is None
    assert store.storage.sizes("") == {}


def test_nothing_is_overwritten(store):
    with store.draft(REFERENCE) as slow:
        (slow.path / "weights").write_text("slow")
        first = commit(store, "first")
        assert store.commit(slow, record()).attempt == first.attempt
    assert weights(store) == "first"
    assert {name.split("/")[0] for name in store.storage.sizes(str(REFERENCE))} == {
        "record.json",
        first.attempt,
    }


def test_a_run_whose_files_are_gone_commits_nothing(store):
    with store.draft(REFERENCE) as slow:
        shutil.rmtree(slow.path)
        with pytest.raises(TransientError, match="were removed while it was at work; run again"):
            store.commit(slow, record())
    assert store.record(REFERENCE) is None


def test_another_runs_artifact_is_verified_before_it_is_used(store):
    """The first commit wins only if its files are what its record says."""
    with store.draft(REFERENCE) as slow:
        (slow.path / "weights").write_text("slow")
        first = commit(store, "first")
        (store.storage.root / first.folder / "model" / "weights").write_text("FIRST")
        second = store.commit(slow, record())
        assert second.attempt == slow.attempt
    assert store.check(REFERENCE) == second
    assert store.is_marked_damaged(first)


def test_what_a_dead_attempt_left_is_removed_once_it_is_a_day_old(store):
    old, young = (store.storage.root / str(REFERENCE) / name for name in ("dead0000", "dead1111"))
    for left in (old, young):
        left.mkdir(parents=True)
        (left / "half").write_text("x")
    os.utime(old / "half", (0, time.time() - LEFTOVERS_ARE_KEPT - 60))
    assert store.find(REFERENCE) is None
    commit(store)
    assert not old.exists()
    assert young.exists()  # a machine that lost its lease may still write to it


@pytest.mark.parametrize("damage", ["change", "truncate", "delete"])
def test_a_damaged_artifact_is_reported_and_rebuilt_beside_the_old_one(store, caplog, damage):
    first = commit(store)
    path = store.path(first, "model/weights")
    if damage == "delete":
        path.unlink()
    else:
        path.write_text("DATA" if damage == "change" else "d")
    assert store.check(REFERENCE) is None
    assert "model/weights" in caplog.text
    path.write_text("data")
    assert store.find(REFERENCE) is None  # once found damaged, never used again
    assert store.check(REFERENCE) is None
    second = commit(store)
    assert second.attempt != first.attempt
    assert weights(store) == "data"
    assert path.exists()


def test_a_folder_without_a_record_is_nothing(store):
    commit(store)
    (store.storage.root / str(REFERENCE) / "record.json").unlink()
    assert store.find(REFERENCE) is None


def test_a_record_of_a_newer_schema_is_refused(store):
    commit(store)
    path = store.storage.root / str(REFERENCE) / "record.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"schema_version": 2, "something": "new"})
    )
    with pytest.raises(
        UserError,
        match=r"problems/f+: written by a newer cotpipe .*upgrade cotpipe",
    ):
        store.find(REFERENCE)


def test_an_invalid_record_is_reported(store):
    commit(store)
    (store.storage.root / str(REFERENCE) / "record.json").write_text("{")
    with pytest.raises(RunError, match=r"record.json is not a valid record"):
        store.find(REFERENCE)


@pytest.mark.parametrize(
    ("kind", "fingerprint"),
    [("../x", "f" * 32), ("problems", "../" + "f" * 29), ("a/b", "f" * 32), ("", "f" * 32)],
)
def test_names_cannot_lead_out_of_the_store(kind, fingerprint):
    with pytest.raises(ValidationError):
        Reference(kind=kind, fingerprint=fingerprint)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../b"])
def test_files_of_a_record_cannot_lead_out_of_its_folder(path):
    with pytest.raises(ValidationError, match="points outside"):
        StoredFile(path=path, size=1, sha256="0")


def test_a_refreshed_artifact_takes_the_place_of_the_first(store):
    assert (
        store.wanted(REFERENCE, refresh=True) == REFERENCE
    )  # what is not there is made in any case
    commit(store)
    assert store.wanted(REFERENCE, refresh=False) == store.latest(REFERENCE) == REFERENCE
    first = store.wanted(REFERENCE, refresh=True)
    assert first == store.wanted(REFERENCE, refresh=True) != REFERENCE
    commit(store, reference=first)
    store.put_in_place(REFERENCE, first)
    assert store.latest(REFERENCE) == store.wanted(REFERENCE, refresh=False) == first
    second = store.wanted(REFERENCE, refresh=True)
    store.put_in_place(REFERENCE, second)
    assert store.latest(REFERENCE) == second not in (REFERENCE, first)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_fingerprints_depend_on_content_alone(fields):
    reordered = dict(reversed(list(fields.items())))
    again = json.loads(json.dumps(fields))
    first = fingerprint_of("problems", 1, fields, {})
    assert (
        first
        == fingerprint_of("problems", 1, reordered, {})
        == fingerprint_of("problems", 1, again, {})
    )
    assert first != fingerprint_of("problems", 2, fields, {})
    assert first != fingerprint_of("rationales", 1, fields, {})
    assert first != fingerprint_of("problems", 1, fields, {"x": "y"})


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, object()])
def test_what_canonical_json_cannot_hold_is_an_error(value):
    with pytest.raises((TypeError, ValueError)):
        fingerprint_of("problems", 1, {"field": value}, {})
