import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotpipe.store import Record, Reference, Store, fingerprint_of


def record(fingerprint="f" * 32):
    return Record(
        kind="problems", fingerprint=fingerprint, step_version=1, fields={}, inputs={}, counts={}, files=[], versions={},
        seconds=0.0,
    )  # fmt: skip


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


REFERENCE = Reference(kind="problems", fingerprint="f" * 32)


def commit(store, text="data"):
    with store.draft() as draft:
        (draft / "model").mkdir()
        (draft / "model" / "weights").write_text(text)
        store.commit(draft, record())


def test_committed_is_found_whole(store):
    assert store.find(REFERENCE) is None
    commit(store)
    found = store.find(REFERENCE)
    assert [(file.path, file.size) for file in found.files] == [("model/weights", 4)]
    assert (store.folder(REFERENCE) / "model" / "weights").read_text() == "data"


def test_a_failed_draft_leaves_nothing(store):
    with pytest.raises(RuntimeError), store.draft() as draft:
        (draft / "half").write_text("x")
        raise RuntimeError
    assert store.find(REFERENCE) is None
    assert list((store.root / ".drafts").iterdir()) == []


def test_nothing_is_overwritten(store):
    commit(store, "first")
    commit(store, "second")
    assert (store.folder(REFERENCE) / "model" / "weights").read_text() == "first"


@pytest.mark.parametrize("damage", ["change", "truncate", "delete"])
def test_a_damaged_artifact_is_reported_moved_aside_and_rebuilt(store, caplog, damage):
    commit(store)
    path = store.folder(REFERENCE) / "model" / "weights"
    if damage == "delete":
        path.unlink()
    else:
        path.write_text("DATA" if damage == "change" else "d")
    assert store.find(REFERENCE) is None
    assert "model/weights" in caplog.text
    assert len(list((store.root / ".damaged").iterdir())) == 1
    commit(store)
    assert store.find(REFERENCE) is not None


def test_a_folder_without_a_record_is_nothing(store):
    commit(store)
    (store.folder(REFERENCE) / "record.json").unlink()
    assert store.find(REFERENCE) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_fingerprints_depend_on_content_alone(fields):
    reordered = dict(reversed(list(fields.items())))
    again = json.loads(json.dumps(fields))
    first = fingerprint_of("problems", 1, fields, {})
    assert first == fingerprint_of("problems", 1, reordered, {}) == fingerprint_of("problems", 1, again, {})
    assert first != fingerprint_of("problems", 2, fields, {})
    assert first != fingerprint_of("rationales", 1, fields, {})
    assert first != fingerprint_of("problems", 1, fields, {"x": "y"})


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, object()])
def test_what_canonical_json_cannot_hold_is_an_error(value):
    with pytest.raises((TypeError, ValueError)):
        fingerprint_of("problems", 1, {"field": value}, {})


def test_a_full_disk_is_told_in_one_line(store, tmp_path):
    from cotpipe.config import Recipe
    from cotpipe.errors import RunError
    from cotpipe.settings import Settings
    from cotpipe.steps.step import Step, run_step

    def fill_the_disk(work):
        with open("/dev/full", "w") as full:
            full.write("x" * 100_000)
        return {}

    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    step = Step("problems", 1, (), lambda recipe: {}, fill_the_disk)
    with pytest.raises(RunError, match=r"No space left on device.*COTPIPE_STORE.*finished steps are kept"):
        run_step(step, Recipe(), {}, store, Settings(), lambda done, total, figures: None)
    assert list((store.root / ".drafts").iterdir()) == []
