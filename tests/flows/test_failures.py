"""Steps that fail: what can heal is tried again, what cannot is not, and no step takes longer than it may."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from flow_runs import TINY
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from stacks import polls

import tasks.steps
from cotpipe.errors import RunError, TransientError, UserError
from cotpipe.recipes import load_recipe
from cotpipe.settings import Settings
from flows.curriculum import curriculum
from tasks.gpus import gpu_slots, gpus_of


def trainings(store: Path) -> list[psutil.Process]:
    """The training processes themselves, without their launchers."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if str(store) in " ".join(line) and "cotpipe.training" in line and not any("launch" in part for part in line):
            found.append(process)
    return found


@pytest.fixture
def recipe(tiny_student):
    return load_recipe(TINY, [f"student.model={tiny_student}", "stage1.num_epochs=20"])


def test_a_killed_training_is_tried_again_and_goes_on(prefect, recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("COTPIPE_STORE", str(tmp_path))
    monkeypatch.setenv("COTPIPE_CHECKPOINT_SECONDS", "0")
    killed = []

    def kill() -> None:
        for _ in polls(120):
            if list(tmp_path.glob("stage1/*/checkpoints/*.json")) and (found := trainings(tmp_path)):
                found[0].send_signal(signal.SIGKILL)
                killed.append(found[0].pid)
                return

    killer = threading.Thread(target=kill)
    killer.start()
    results = curriculum(recipe=recipe, until="stage1")
    killer.join()
    assert len(killed) == 1
    assert results["stage1"]["counts"]["optimizer_steps"] == 40
    with get_client(sync_client=True) as client:
        for _ in polls(20):
            newest_first = client.read_task_runs(sort="EXPECTED_START_TIME_DESC", limit=50)
            attempts = next(run.run_count for run in newest_first if run.name == "stage1")
            if attempts == 2:
                break
    assert attempts == 2


@pytest.mark.parametrize(
    ("error", "attempts"),
    [(TransientError("lost"), 4), (UserError("wrong"), 1), (RunError("broken"), 1), (ValueError("a bug"), 1)],
)
def test_only_what_can_heal_is_tried_again(prefect, monkeypatch, error, attempts):
    tried = []

    def fail() -> None:
        tried.append(1)
        raise error

    step = tasks.steps.verb(name="fail", task_run_name="fail", retry_delay_seconds=0)(fail)

    @flow
    def failing() -> None:
        step()

    with pytest.raises(type(error)):
        failing()
    assert len(tried) == attempts


def test_waits_grow_and_differ():
    first, second = tasks.steps._waits(3), tasks.steps._waits(3)
    assert first != second
    for waits in (first, second):
        assert all(5 * 2**number <= wait <= 15 * 2**number for number, wait in enumerate(waits))


def test_a_step_that_takes_too_long_is_ended_with_its_training(prefect, recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("COTPIPE_STORE", str(tmp_path))
    monkeypatch.setenv("COTPIPE_STEP_HOURS", str(8 / 3600))
    with pytest.raises(RunError, match="step stage1 took longer than .* hours; raise COTPIPE_STEP_HOURS"):
        curriculum(recipe=recipe, until="stage1")
    assert not trainings(tmp_path)


def test_memory_that_is_too_small_halves_the_micro_batch(tmp_path, tiny_student):
    """A real shortage: the training may take so much memory that 16 rows do not fit, and fewer do."""
    code = """
import resource, sys
from cotpipe.curriculum import STEPS, needed_for
from cotpipe.recipes import load_recipe
from cotpipe.settings import Settings
from cotpipe.steps.step import Silent, StepRunner
from cotpipe.store import open_store

resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[2]) << 20,) * 2)
changes = [f"student.model={sys.argv[1]}", "stage1.max_length=1024", "stage1.max_problems=32"]
recipe = load_recipe(sys.argv[3], [*changes, "stage1.batch_size=32", "stage1.micro_batch=32"])
runner, found = StepRunner(open_store(Settings()), Settings(), Silent()), {}
for kind, step in STEPS.items():
    if kind in needed_for("stage1"):
        outcome = runner.run(step, recipe, {name: found[name] for name in step.inputs})
        found[kind] = outcome.reference
print(outcome.record.counts["micro_batch"])
"""
    environment = os.environ | {"COTPIPE_STORE": str(tmp_path / "store"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_student), "2600", TINY],
        capture_output=True, text=True, env=environment, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) < 32
    assert "memory runs out" in done.stderr


def test_slots_for_gpus(prefect):
    recipe = load_recipe("demo")
    asking = load_recipe("demo", ["teacher.engine=vllm", "teacher.model=a/b"])
    settings = Settings(num_processes=2, tensor_parallel=3, gpu_limit="few")
    counts = {
        kind: gpus_of(kind, recipe, settings) for kind in ("problems", "rationales", "stage2", "failures", "report")
    }
    assert counts == {"problems": 0, "rationales": 0, "stage2": 2, "failures": 3, "report": 0}
    assert gpus_of("rationales", asking, settings) == 3

    def hold(count: int) -> list[str]:
        notes: list[str] = []

        @flow
        def holding() -> None:
            with gpu_slots(count, settings, notes.append), get_client(sync_client=True) as client:
                notes.append(str(client.read_global_concurrency_limit_by_name("few").active_slots))

        holding()
        return notes

    with pytest.raises(UserError, match="no global concurrency limit 'few'; `cotpipe up` makes it"):
        hold(2)
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name="few", limit=2))
    assert hold(2) == ["waits for 2 of the GPU slots 'few'", "2"]
    with pytest.raises(UserError, match="needs 3 GPUs at once and the limit 'few' has 2; .*cotpipe up --gpus 3"):
        hold(3)
