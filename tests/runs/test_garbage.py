"""What `gc` may take: never what a run uses, plans, or is about to use, whenever it started."""

import os
import shutil
import time
from functools import partial
from pathlib import Path

import pytest

from cotpipe.errors import RunError, TransientError
from cotpipe.progress import Silent
from cotpipe.recipe.files import load_recipe
from cotpipe.recipe.model import Recipe
from cotpipe.runs.collection import collect_garbage
from cotpipe.runs.comparisons import FOLDER as COMPARISONS
from cotpipe.runs.garbage import find_garbage
from cotpipe.runs.log import FOLDER, RunLog
from cotpipe.runs.nights import INBOX
from cotpipe.runs.promotion import REGISTRY
from cotpipe.runs.upkeep import Checked, verify
from cotpipe.settings import Settings
from cotpipe.steps.runner import StepRunner
from cotpipe.steps.step import Step
from cotpipe.store.artifacts import Store
from cotpipe.store.leases import Contender
from cotpipe.store.records import RECORD, RESERVED, SET_ASIDE, SHARDS, Record, Reference
from cotpipe.store.storage import LocalStorage

DAY = 24 * 3600.0


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(LocalStorage(tmp_path / "store"), tmp_path / "cache")


def reference(kind: str, digit: str = "1") -> Reference:
    return Reference(kind=kind, fingerprint=digit * 32)


def commit(store: Store, one: Reference, **changes) -> Record:
    values = {
        "step_version": 1, "fields": {}, "inputs": {}, "counts": {}, "files": [], "versions": {},
        "made_at": "2026-01-01T00:00:00+00:00", "seconds": 0.0,
    }  # fmt: skip
    with store.draft(one) as draft:
        (draft.path / "file").write_text("x")
        identity = {"kind": one.kind, "fingerprint": one.fingerprint, "attempt": draft.attempt}
        return store.commit(draft, Record.model_validate(values | changes | identity))


def pass_time(store: Store, seconds: float) -> None:
    """Everything in the store becomes older."""
    for path in Path(store.storage.address).rglob("*"):
        if path.is_file():
            os.utime(path, (0, path.stat().st_mtime - seconds))


def gc(store: Store, grace: float = DAY) -> set[str]:
    look, garbage = find_garbage(store, keep_runs=0, grace=grace)
    return {item.name for item in collect_garbage(store, look, garbage)}


def gc_until_all_is_gone(store: Store) -> None:
    for _ in range(3):
        gc(store)
        pass_time(store, 2 * DAY)


def begun(store: Store, *planned: Reference, recipe: Recipe | None = None) -> RunLog:
    log = RunLog(store.storage, recipe or load_recipe("demo"), suffix="0123abcd")
    log.plan(planned)
    return log


def test_what_nothing_needs_is_set_aside_first_and_removed_after_the_grace_period(store):
    one = commit(store, reference("problems"))
    pass_time(store, 100 * DAY)
    assert gc(store) == set()
    assert store.check(one.reference) == one  # usable all the time, and so taken back
    assert not store.storage.read(f"{one.reference}/{SET_ASIDE}")
    assert gc(store) == set()
    pass_time(store, DAY / 2)
    assert gc(store) == set()
    pass_time(store, DAY / 2)
    assert gc(store) == {str(one.reference)}
    assert store.storage.files("") == {}


def test_what_a_night_needs_beside_its_own_steps_is_kept_until_it_ends(store):
    """A batch of problems, the student that is its anchor: of kinds that its steps have, too."""
    problems = [commit(store, reference("problems", digit)).reference for digit in "12"]
    students = [commit(store, reference("student", digit)).reference for digit in "12"]
    log = begun(store, problems[0], students[0])
    log.need([problems[1]])
    log.need([students[1]])
    gc_until_all_is_gone(store)
    assert all(store.find(one) for one in problems + students)
    log.finish("completed")
    gc_until_all_is_gone(store)
    assert not any(store.find(one) for one in problems + students)


def test_a_run_that_started_long_ago_and_lives_keeps_what_it_planned(store):
    problems = commit(store, reference("problems"))
    lessons = commit(store, reference("lessons"), inputs={"problems": "1" * 32})
    log = begun(store, lessons.reference, reference("stage1"))
    for _ in range(12):
        pass_time(store, 2 * DAY)
        log.step(lessons.reference, reused=True, seconds=0.0)  # as its heartbeat does
        gc(store)
    assert store.check(problems.reference)
    assert store.check(lessons.reference)
    pass_time(store, 8 * DAY)  # silent for longer than a week: it is dead
    gc_until_all_is_gone(store)
    assert store.find(lessons.reference) is None


def test_a_heartbeat_writes_the_record_of_a_run_again(store):
    log = begun(store)
    pass_time(store, 30 * DAY)
    (before,) = store.storage.files("runs").values()
    with log.heartbeat(seconds=0.01):
        deadline = time.monotonic() + 60
        while list(store.storage.files("runs").values()) == [before]:
            assert time.monotonic() < deadline
    assert next(iter(store.storage.files("runs").values())).modified > before.modified


def test_shards_of_a_generation_under_way_are_kept_however_old(store):
    """Killed and started again for weeks, a generation still finds its first shard."""
    shard = Step(SHARDS, 1, (), lambda recipe: {"requests": 1}, write)
    broken = Step(SHARDS, 1, (), lambda recipe: {"requests": 2}, fail)

    def generate(work) -> dict[str, int]:
        list(work.shards([shard, broken], "file", lambda number: None))
        return {}

    step = Step("rationales", 1, (), lambda recipe: {}, generate)
    runner = StepRunner(store, Settings(), Silent())
    with pytest.raises(RunError, match="the server is away"):
        runner.run(step, Recipe(), {})
    whole = Reference(
        kind="rationales", fingerprint=os.listdir(store.storage.root / "rationales")[0]
    )
    log = begun(store, whole)
    for _ in range(6):
        pass_time(store, 3 * DAY)
        log.plan([whole])
        gc(store)
    assert len(store.records(SHARDS)) == 1


def requests(number: int, recipe: Recipe) -> dict[str, int]:
    return {"requests": number}


def test_shards_of_earlier_rounds_of_a_generation_under_way_are_kept(store):
    """The teacher asks in rounds; what the first round has cost is not lost in the second."""
    shards = [Step(SHARDS, 1, (), partial(requests, number), write) for number in range(2)]
    problems = commit(store, reference("problems")).reference

    def generate(work) -> dict[str, int]:
        for shard in shards:
            list(work.shards([shard], "file", lambda number: None))
        for _ in range(3):
            pass_time(store, 2 * DAY)
            for lease in store.storage.root.glob("rationales/*/lease-*"):
                os.utime(lease)  # its heartbeat
            gc(store)
        assert len(store.records(SHARDS)) == 2
        assert store.check(problems)
        return write(work)

    step = Step("rationales", 1, ("problems",), lambda recipe: {}, generate)
    StepRunner(store, Settings(), Silent()).run(step, Recipe(), {"problems": problems})


def write(work) -> dict[str, int]:
    (work.output / "file").write_text("text")
    return {}


def fail(work) -> dict[str, int]:
    raise RunError("the server is away")


def test_a_refreshed_artifact_is_found_and_refreshed_again_after_a_collection(store):
    """What it has replaced goes, for no run names that; the file that names the new one stays."""
    asked = []

    def answer(work) -> dict[str, int]:
        asked.append(len(asked))
        return write(work)

    shard = Step(SHARDS, 1, (), lambda recipe: {"requests": 1}, answer)

    def generate(work) -> dict[str, int]:
        list(work.shards([shard], "file", lambda number: None))
        return write(work)

    step = Step("rationales", 1, (), lambda recipe: {}, generate)
    runner = StepRunner(store, Settings(), Silent())
    plain = runner.run(step, Recipe(), {}).reference
    outcomes = [runner.run(step, Recipe(), {}, refresh=True).reference for _ in range(2)]
    for named in outcomes:  # the first by an older run; the second's name must not be lost then
        log = begun(store, named)
        for _ in range(4):
            pass_time(store, 2 * DAY)
            log.plan([named])
            gc(store)
        assert store.find(plain) is None
        assert store.latest(plain) == outcomes[-1]
        log.finish("completed")
        store.storage.remove("runs")
        runner.run(step, Recipe(), {})
    assert len(asked) == 4  # the second was collected, and made again under its name
    latest = runner.run(step, Recipe(), {}, refresh=True)
    assert (latest.reused, latest.reference in outcomes, len(asked)) == (False, False, 5)
    for _ in range(3):
        gc_until_all_is_gone(store)
    assert store.storage.files("") == {}


def test_the_batches_of_a_night_are_kept_from_its_start(store):
    """Nothing but the night's recipe names them until its first step is done."""
    batches = [commit(store, reference("problems", digit)) for digit in "12"]
    fresh = commit(store, reference("problems", "3"))
    source = {"kind": "stored", "problems": [one.fingerprint for one in batches]}
    recipe = Recipe.model_validate({"problems": {"source": source}})
    log = begun(store, recipe=recipe)
    for _ in range(3):
        pass_time(store, 2 * DAY)
        log.plan([])
        gc(store)
    assert all(store.find(one.reference) for one in batches)
    assert store.find(fresh.reference) is None


def test_what_is_being_built_is_kept_with_all_that_it_reads(store):
    """Also without a run's record: from a notebook, or by `take in`."""
    read = commit(store, reference("problems"))
    making = reference("lessons", "2")
    with Contender(store.storage, str(making), seconds=60).try_lease():
        store.note_needs(making, [read.reference])
        for _ in range(3):
            pass_time(store, 2 * DAY)
            (name,) = (name for name in store.storage.sizes(str(making)) if "lease" in name)
            os.utime(store.storage.root / str(making) / name)
            gc(store)
        assert store.check(read.reference)


@pytest.mark.parametrize("how", ["planned", "named by its recipe", "used", "promoted"])
def test_a_run_that_starts_between_the_look_and_the_removal_loses_nothing(store, how):
    one = commit(store, reference("problems"))
    gc(store)
    pass_time(store, 2 * DAY)
    look, garbage = find_garbage(store, keep_runs=0, grace=DAY)
    assert [item.ready for item in garbage] == [True]
    if how == "planned":
        begun(store, one.reference)
    elif how == "named by its recipe":
        source = {"kind": "stored", "problems": [one.fingerprint]}
        begun(store, recipe=Recipe.model_validate({"problems": {"source": source}}))
    elif how == "used":
        assert store.check(one.reference)
    else:
        from cotpipe.runs.promotion import ModelRegistry, write_registry

        registry = ModelRegistry().with_promotion(one.reference, "run", "by hand")
        write_registry(store.storage, registry)
    assert collect_garbage(store, look, garbage) == []
    assert store.check(one.reference) == one


class Interrupted(LocalStorage):
    """A disk on which others do something directly before a file is removed, read or hashed."""

    file, others = "", staticmethod(lambda: None)

    def interrupt(self, *names: str) -> None:
        if any(name.endswith(self.file) for name in names):
            others, self.others = self.others, lambda: None
            others()

    def remove_files(self, names) -> None:
        self.interrupt(*names)
        super().remove_files(names)

    def remove(self, name) -> None:
        self.interrupt(name)
        super().remove(name)

    def read(self, name) -> bytes | None:
        self.interrupt(name)
        return super().read(name)

    def sha256(self, name) -> str:
        self.interrupt(name)
        return super().sha256(name)


@pytest.mark.parametrize("how", ["used", "planned", "named by its recipe"])
def test_a_run_that_starts_directly_before_a_removal_loses_nothing(store, how):
    """`gc` has looked for the last time, and then a run uses the artifact, or will."""
    one, other = (commit(store, reference("problems", digit)) for digit in "12")
    gc(store)
    pass_time(store, 2 * DAY)
    look, garbage = find_garbage(store, keep_runs=0, grace=DAY)
    beside = Store(LocalStorage(store.storage.root))

    def start() -> None:
        source = {"kind": "stored", "problems": [one.fingerprint]}
        if how == "used":
            assert beside.check(one.reference) == one
        elif how == "planned":
            begun(beside, one.reference)
        else:
            begun(beside, recipe=Recipe.model_validate({"problems": {"source": source}}))

    store.storage = Interrupted(store.storage.root)
    store.storage.file, store.storage.others = RECORD, start
    assert [item.name for item in collect_garbage(store, look, garbage)] == [str(other.reference)]
    assert store.check(one.reference) == one
    assert store.path(one, "file").read_text() == "x"
    assert store.check(other.reference) is None


def test_a_run_does_not_use_what_is_removed_while_it_looks(store):
    """The other way round: a run has read the record, and then `gc` removes the artifact."""
    one = commit(store, reference("problems"))
    gc(store)
    pass_time(store, 2 * DAY)
    removed = []
    storage = Interrupted(store.storage.root)
    storage.file, storage.others = SET_ASIDE, lambda: removed.append(gc(store))
    assert Store(storage).check(one.reference) is None
    assert removed == [{str(one.reference)}]


def test_a_collection_that_fails_half_way_loses_nothing_that_somebody_uses(store):
    """The records are gone, and then the server is; what it comes back with is whole."""
    made = [commit(store, reference("problems", digit)) for digit in "123"]
    gc(store)
    pass_time(store, 2 * DAY)
    look, garbage = find_garbage(store, keep_runs=0, grace=DAY)
    store.storage = Interrupted(store.storage.root)

    def fail() -> None:
        assert store.records() == []
        raise TransientError("the server is away")

    store.storage.file, store.storage.others = SET_ASIDE, fail
    with pytest.raises(TransientError, match="is away"):
        collect_garbage(store, look, garbage)
    assert [store.check(one.reference) for one in made] == made


def test_what_gc_removes_beside_a_verify_is_not_taken_for_damaged(store):
    one, other = (commit(store, reference("problems", digit)) for digit in "12")
    gc(store)
    pass_time(store, 2 * DAY)
    assert store.check(other.reference)
    removed = []
    storage = Interrupted(store.storage.root)
    storage.file = f"{one.attempt}/file"
    storage.others = lambda: removed.append(gc(store))
    assert verify(Store(storage), lambda done, total: None) == [Checked(other.reference, [])]
    assert removed == [{str(one.reference)}]
    assert not any(name.startswith(str(one.reference)) for name in store.storage.files(""))


def test_an_input_that_is_gone_is_one_line_that_says_what_to_do(store):
    made = commit(store, reference("problems"))
    store.storage.remove(str(made.reference))

    def read(work) -> dict[str, int]:
        work.input("problems", "file")
        return {}

    step = Step("lessons", 1, ("problems",), lambda recipe: {}, read)
    with pytest.raises(TransientError, match="no longer in the store .*run again to rebuild it"):
        StepRunner(store, Settings(), Silent()).run(step, Recipe(), {"problems": made.reference})


def test_leftovers_and_damaged_attempts_of_needed_artifacts_go_when_they_are_old(store):
    one = commit(store, reference("problems"))
    store.storage.replace(f"{one.reference}/dead0000/half", b"x")
    store.storage.replace(f"{one.reference}/lease-7.json", b"{}")
    log = begun(store, one.reference)
    assert gc(store) == set()
    pass_time(store, 2 * DAY)
    log.plan([one.reference])
    assert gc(store) == {f"{one.reference}/dead0000", f"{one.reference}/lease-7.json"}
    store.storage.replace(f"{one.folder}/file", b"damaged")
    assert store.check(one.reference) is None
    assert gc(store) == set()
    again = commit(store, one.reference)
    pass_time(store, 2 * DAY)
    log.plan([one.reference])
    assert f"{one.folder}" in gc(store)
    assert store.check(one.reference) == again


def test_files_of_users_with_names_like_artifacts_stay_where_they_are(store, caplog):
    """Files in the inbox, copies of artifacts and other files of theirs, whatever they are named."""
    one = commit(store, reference("problems"))
    root, name = store.storage.root, "d" * 32
    for path in (
        f"inbox/{name}/new.jsonl", f"models/{name}/mine.txt", f"pictures/{name}/cat.png",
        f"notes/{one.fingerprint}/why.txt",
    ):  # fmt: skip
        (root / path).parent.mkdir(parents=True)
        (root / path).write_text("{}")
    shutil.copytree(root / str(one.reference), root / "backup" / one.fingerprint)
    theirs = [name for name in store.storage.files("") if not name.startswith("problems")]
    assert store.records() == [one]  # and so `sql` counts no row twice
    assert f"backup/{one.fingerprint} is a copy of {one.reference}" in caplog.text
    begun(store, one.reference).finish("failed")  # it is kept for a week, by whatever it names
    gc_until_all_is_gone(store)
    pass_time(store, 8 * DAY)
    gc_until_all_is_gone(store)
    assert sorted(store.storage.files("")) == sorted(theirs)
    assert f"pictures/{name} holds files that are not of this store" in caplog.text


def test_no_artifact_has_the_name_of_another_folder_of_the_store():
    assert {INBOX, REGISTRY, FOLDER, COMPARISONS} == RESERVED


def test_what_an_interrupted_collection_left_of_an_artifact_goes(store):
    """Without its record, only the names of the files tell whose they are."""
    one = commit(store, reference("problems"))
    store.note_needs(one.reference, [reference("lessons")])
    for name in ("training-state/00000001.json", "lease-3.json", "damaged-01234567.json"):
        store.storage.replace(f"{one.reference}/{name}", b"{}")
    store.storage.remove(f"{one.reference}/record.json")
    pass_time(store, 2 * DAY)
    gc_until_all_is_gone(store)
    assert store.storage.files("") == {}


def test_an_old_run_is_set_aside_too_and_a_larger_number_of_kept_runs_takes_it_back(store):
    one = commit(store, reference("problems"))
    log = begun(store, one.reference)
    log.finish("completed")
    gc(store)
    pass_time(store, DAY / 2)
    look, garbage = find_garbage(store, keep_runs=1, grace=DAY)
    collect_garbage(store, look, garbage)
    assert not any(SET_ASIDE in name for name in store.storage.files(""))
    gc_until_all_is_gone(store)
    assert store.storage.files("") == {}
