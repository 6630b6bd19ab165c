"""Shards of a generation as Prefect sees them: mapped tasks, a bounded number at a time, `Cached` the second time."""

import threading
from functools import partial
from uuid import UUID

import pytest
from prefect import flow

from cotpipe.errors import RunError
from cotpipe.recipe.files import load_recipe
from cotpipe.recipe.model import Recipe
from cotpipe.steps.runner import Outcome
from cotpipe.store.records import Record, Reference
from tasks.shards import side_by_side
from tasks.steps import prepare
from tests.helpers.polling import PATIENCE, polls
from tests.helpers.servers import ScriptedModel
from tests.helpers.task_runs import task_runs_of

KEY = "a-key-that-nobody-may-see"
RECIPE = load_recipe(
    "demo", ["problems.source.num_problems=10", "teacher.engine=openai", "teacher.model=scripted", "teacher.max_rejected_share=1"]
)  # fmt: skip

NUM_SHARDS = 6  # of ten problems, by the hashes of their ids, with at most three in a shard


@flow
def teach(recipe: Recipe) -> UUID:
    from prefect.runtime import flow_run

    found = {}
    for kind in ("problems", "rationales"):
        found[kind] = Reference.model_validate(
            prepare(kind, recipe, dict(found)).result().reference
        )
    return UUID(flow_run.get_id())


def shards_of(flow_run_id: UUID) -> list[tuple[str, str | None]]:
    runs = task_runs_of(flow_run_id)
    return sorted((run.name, run.state_name) for run in runs if run.name.startswith("shard"))


def wait_for_shards(flow_run_id: UUID, state: str) -> None:
    """The server writes the states of tasks a little later."""
    expected = [(f"shard-{number}", state) for number in range(NUM_SHARDS)]
    for _ in polls():
        if shards_of(flow_run_id) == expected:
            return
    assert shards_of(flow_run_id) == expected


def test_shards_are_tasks_of_their_own_and_cached_when_they_are_there(
    prefect, tmp_path, monkeypatch
):
    with ScriptedModel(lambda messages, body: "Step 1: a\nAnswer: 1", key=KEY) as model:
        for name, value in {
            "STORE": str(tmp_path), "SERVERS": model.address, "SERVER_KEY": KEY, "SHARD_SIZE": "3", "SHARDS_AT_ONCE": "2",
        }.items():  # fmt: skip
            monkeypatch.setenv(f"COTPIPE_{name}", value)
        wait_for_shards(teach(RECIPE), "Completed")
        again = RECIPE.model_copy(
            update={"teacher": RECIPE.teacher.model_copy(update={"min_steps": 3})}
        )
        wait_for_shards(teach(again), "Cached")
        assert len(model.bodies) == 10
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes()


def outcome(number: int) -> Outcome:
    reference = Reference(kind="generations", fingerprint=f"{number:032x}")
    record = Record(
        kind=reference.kind, fingerprint=reference.fingerprint, attempt="0" * 8, step_version=1, fields={}, inputs={},
        counts={}, files=[], versions={}, made_at="2026-01-01T00:00:00+00:00", seconds=0.0,
    )  # fmt: skip
    return Outcome(reference, reused=False, record=record)


def test_no_more_at_a_time_than_set_and_all_are_tried_before_a_failure_is_raised(
    prefect, monkeypatch
):
    monkeypatch.setenv("COTPIPE_SHARDS_AT_ONCE", "2")
    together, lock = threading.Barrier(2, timeout=PATIENCE), threading.Lock()
    live, peak, done = 0, 0, []

    def job(number: int) -> Outcome:
        nonlocal live, peak
        with lock:
            live += 1
            peak = max(peak, live)
        together.wait()  # passes only where two are under way
        with lock:
            live -= 1
        if number == 1:
            raise RunError("the second shard fails")
        done.append(number)
        return outcome(number)

    @flow
    def run(count: int) -> list[str]:
        return [
            str(one.reference)
            for one in side_by_side([partial(job, number) for number in range(count)])
        ]

    with pytest.raises(RunError, match="the second shard fails"):
        run(6)
    assert peak == 2
    assert sorted(done) == [0, 2, 3, 4, 5]
