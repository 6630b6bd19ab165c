"""The store's operations in any order by several machines, against a model of what must hold."""

import os
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cotpipe.errors import TransientError
from cotpipe.recipe.files import load_recipe
from cotpipe.runs.collection import collect_garbage
from cotpipe.runs.garbage import Garbage, Look, find_garbage
from cotpipe.runs.log import RunLog
from cotpipe.store.artifacts import Draft, Store
from cotpipe.store.leases import Contender, HeldLease
from cotpipe.store.records import Record, Reference
from cotpipe.store.storage import LocalStorage

_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
HOUR = 3600.0
GRACE_HOURS = 24
LEASE_SECONDS = 6 * HOUR  # longer than a test, so that heartbeats come from the rules alone
RECIPE = load_recipe("demo")
FIRST, SECOND, OTHER = (
    Reference(kind=kind, fingerprint=digit * 32)
    for kind, digit in (("problems", "1"), ("lessons", "1"), ("problems", "2"))
)
INPUTS = {FIRST: None, SECOND: FIRST, OTHER: None}
references = st.sampled_from(list(INPUTS))
machines = st.integers(0, 1)


@dataclass
class Work:
    """An artifact in the making."""

    reference: Reference
    lease: HeldLease
    draft: Draft
    undo: ExitStack  # leaves the draft and gives the lease back


@dataclass
class Machine:
    """One that runs: with a clock of its own, from any start, and one run at a time."""

    store: Store
    seconds: float
    log: RunLog | None = None
    work: Work | None = None
    asleep: bool = False
    contenders: dict[Reference, Contender] = field(default_factory=dict)


class AnyOrder(RuleBasedStateMachine):
    """Machines plan, build, commit, fail, die, sleep, use and collect; nothing that counts is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="cotpipe-any-order-", dir=_MEMORY))
        self.storage = LocalStorage(self.folder / "store")
        self.machines = [
            Machine(Store(self.storage, self.folder / f"cache-{number}"), seconds=start)
            for number, start in enumerate((0.0, 10.0**9))
        ]
        self.hours = 0.0
        self.num_runs = 0
        self.used: dict[Reference, float] = {}  # committed and intact: when it was used last
        self.attempts: dict[Reference, str] = {}
        self.dead: list[Work] = []
        self.looked: tuple[Store, Look, list[Garbage]] | None = None

    def teardown(self) -> None:
        for one in [*self.dead, *(machine.work for machine in self.machines if machine.work)]:
            silence(one.lease)
        shutil.rmtree(self.folder, ignore_errors=True)

    @rule(number=machines, reference=references)
    def plan(self, number: int, reference: Reference) -> None:
        """A run begins that needs an artifact and what that is made from."""
        machine = self.machines[number]
        if machine.log is None:
            self.num_runs += 1
            machine.log = RunLog(self.storage, RECIPE, suffix=f"{self.num_runs:08d}")
            machine.log.plan(chain(reference))

    @rule(number=machines, reference=references)
    def begin(self, number: int, reference: Reference) -> None:
        """Build what is not there, once its input is, unless another machine holds the lease."""
        machine = self.machines[number]
        before = INPUTS[reference]
        if machine.work or machine.asleep or self.is_found_whole(number, reference):
            return
        if before and not self.is_found_whole(number, before):
            return
        contender = machine.contenders.setdefault(
            reference,
            Contender(self.storage, str(reference), LEASE_SECONDS, lambda: machine.seconds),
        )
        undo = ExitStack()
        lease = undo.enter_context(contender.try_lease())
        if lease is None:
            return
        machine.store.note_needs(reference, [before] if before else [])
        draft = undo.enter_context(machine.store.draft(reference))
        (draft.path / "half").write_text(str(reference)[:10])
        machine.work = Work(reference, lease, draft, undo)

    @rule(number=machines, reference=references)
    def build(self, number: int, reference: Reference) -> None:
        """A build that nothing interrupts."""
        if self.machines[number].work is None:
            self.begin(number, reference)
            self.commit(number)

    @initialize()
    def build_all(self) -> None:
        for reference in INPUTS:
            self.build(0, reference)

    @rule(number=machines)
    def commit(self, number: int) -> None:
        machine = self.machines[number]
        if machine.work is None or machine.asleep:
            return
        work, machine.work = machine.work, None
        try:
            (work.draft.path / "half").write_text(str(work.reference))
            work.lease.confirm()
            record = machine.store.commit(work.draft, record_of(work.reference, work.draft))
        except (TransientError, FileNotFoundError) as error:  # displaced; perhaps for a day
            assert not work.lease._is_ours()
            with pytest.raises(type(error)), work.undo:
                raise error
            return
        work.undo.close()
        self.used[work.reference] = self.hours
        self.attempts[work.reference] = record.attempt

    @rule(number=machines)
    def fail(self, number: int) -> None:
        machine = self.machines[number]
        if machine.work and not machine.asleep:
            work, machine.work = machine.work, None
            with pytest.raises(RuntimeError), work.undo:
                raise RuntimeError

    @rule(number=machines)
    def die(self, number: int) -> None:
        """The power goes: nothing is cleaned up, and the run is never finished."""
        machine = self.machines[number]
        if machine.work:
            silence(machine.work.lease)
            self.dead.append(machine.work)
        machine.work, machine.log, machine.asleep = None, None, False

    @rule(number=machines)
    def sleep_or_wake(self, number: int) -> None:
        """A machine is suspended, or goes on where it was."""
        machine = self.machines[number]
        machine.asleep = not machine.asleep
        if not machine.asleep:
            beat(machine)

    @rule(number=machines, reference=references)
    def lose_the_lease(self, number: int, reference: Reference) -> None:
        """A machine is suspended at work; the other one watches for long enough, and takes over."""
        machine, other = self.machines[number], self.machines[1 - number]
        if machine.work:  # perhaps displaced already
            return
        self.begin(number, reference)
        if machine.work and other.work is None and not other.asleep:
            machine.asleep = True
            self.begin(1 - number, machine.work.reference)
            assert other.work is None
            self.pass_time(7.0)
            self.begin(1 - number, machine.work.reference)
            machine.asleep = False
            beat(machine)

    @rule(number=machines)
    def finish(self, number: int) -> None:
        machine = self.machines[number]
        if machine.log and machine.work is None:
            machine.log.finish("completed")
            machine.log = None

    @rule(number=machines, reference=references)
    def use(self, number: int, reference: Reference) -> None:
        self.is_found_whole(number, reference)

    def is_found_whole(self, number: int, reference: Reference) -> bool:
        """Whether a machine finds the artifact: if it was committed, and then whole."""
        store = self.machines[number].store
        record = store.check(reference)
        assert (record is not None) == (reference in self.used)
        if record:
            assert store.path(record, "half").read_text() == str(reference)
            self.used[reference] = self.hours
        return record is not None

    @precondition(lambda self: self.used)
    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        reference = data.draw(st.sampled_from(sorted(self.used, key=str)))
        record = self.machines[0].store.record(reference)
        assert record
        (self.storage.root / record.folder / "half").write_text("damaged")
        assert self.machines[0].store.check(reference) is None
        del self.used[reference]

    @rule(hours=st.sampled_from([7.0, 25.0, 24.0 * 8]))
    def pass_time(self, hours: float) -> None:
        """All files age, all clocks go on, and who is awake renews leases and run records."""
        self.hours += hours
        for path in self.storage.root.rglob("*"):
            if path.is_file():
                os.utime(path, (0, path.stat().st_mtime - hours * HOUR))
        for machine in self.machines:
            machine.seconds += hours * HOUR
            if not machine.asleep:
                beat(machine)

    @rule(number=machines)
    def look_for_garbage(self, number: int) -> None:
        store = self.machines[number].store
        self.looked = store, *find_garbage(store, keep_runs=0, grace=GRACE_HOURS * HOUR)

    @precondition(lambda self: self.looked)
    @rule()
    def collect(self) -> None:
        """A `gc` ends; others may have done anything since it looked."""
        assert self.looked
        store, look, garbage = self.looked
        self.looked = None
        needed = {one for machine in self.machines for one in needed_by(machine)}
        for item in collect_garbage(store, look, garbage):
            for reference in [one for one in self.used if str(one) == item.name]:
                assert reference not in needed
                assert self.hours - self.used[reference] >= GRACE_HOURS
                del self.used[reference]

    @rule(number=machines, reference=references)
    def start_while_another_collects(self, number: int, reference: Reference) -> None:
        """A run begins when a `gc` has found its artifacts unneeded for a whole day."""
        self.gc(number)
        self.pass_time(25.0)
        self.look_for_garbage(number)
        self.plan(1 - number, reference)
        self.collect()

    @rule(number=machines, reference=references)
    def run_for_days(self, number: int, reference: Reference) -> None:
        self.plan(number, reference)
        for _ in range(3):
            self.pass_time(25.0)
            self.gc(1 - number)

    @rule(number=machines)
    def gc(self, number: int) -> None:
        self.look_for_garbage(number)
        self.collect()

    @invariant()
    def nothing_is_lost_half_or_overwritten(self) -> None:
        store = self.machines[0].store
        for reference in self.used:
            record = store.find(reference)
            assert record, f"{reference} is gone"
            assert record.attempt == self.attempts[reference]
            assert (self.storage.root / record.folder / "half").read_text() == str(reference)


def chain(reference: Reference) -> list[Reference]:
    """The artifact, and all that it is made from."""
    before = INPUTS[reference]
    return [reference, *(chain(before) if before else [])]


def needed_by(machine: Machine) -> list[Reference]:
    """What it planned, and what it reads and builds as long as it holds the lease."""
    if machine.asleep:
        return []
    building = machine.work and machine.work.lease._is_ours()
    return [
        *(machine.log.run.references.values() if machine.log else ()),
        *(chain(machine.work.reference) if machine.work and building else ()),
    ]


def beat(machine: Machine) -> None:
    """Whoever is awake renews its lease and its run's record."""
    if machine.work:
        machine.work.lease.beat()
    if machine.log:
        machine.log.plan(machine.log.run.references.values())


def silence(lease: HeldLease) -> None:
    """End a holder as the system does at its death."""
    lease._over.set()
    lease._sign.close()


def record_of(reference: Reference, draft: Draft) -> Record:
    before = INPUTS[reference]
    return Record(
        kind=reference.kind, fingerprint=reference.fingerprint, attempt=draft.attempt, step_version=1,
        fields={}, inputs={before.kind: before.fingerprint} if before else {}, counts={}, files=[],
        versions={}, made_at="2026-01-01T00:00:00+00:00", seconds=0.0,
    )  # fmt: skip


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=80,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
