"""A real server on PostgreSQL, a real worker, real runs: reruns, kills, cancels, GPU slots."""

import json
from datetime import datetime, timedelta
from typing import Any

import httpx
import psutil

from cotpipe.recipe.model import Recipe
from cotpipe.runs.log import read_runs
from cotpipe.settings import Settings
from cotpipe.store.artifacts import open_store
from cotpipe.store.records import Record
from tests.helpers.polling import PATIENCE, polls
from tests.helpers.repository import ROOT
from tests.helpers.servers import ScriptedModel


def stages_with(name: str, section: str, **changes: Any) -> dict[str, Any]:
    """What the form sends when one stage's fields are filled in: the stages, all of them."""
    stages = Recipe().model_dump(mode="json")["stages"]
    for stage in stages:
        if stage["name"] == name:
            stage[section] |= changes
    return {"stages": stages}


LONG = stages_with("stage1", "examples", num_epochs=60)
"""Over a hundred optimizer steps, about a minute."""


def test_up_makes_everything_once_and_the_doctor_finds_it(stack):
    first = stack.client.post("/deployments/filter", json={}).json()
    assert {one["name"] for one in first} == {
        "curriculum", "nightly", "compare", "prepare", "stage1", "stage2", "mine", "stage3", "evaluate"
    }  # fmt: skip
    assert stack.address in stack.up()
    again = stack.client.post("/deployments/filter", json={}).json()
    assert {one["id"] for one in again} == {one["id"] for one in first}
    done = stack.cotpipe("up", "--port", "1")
    assert done.returncode == 2
    assert f"the server that cotpipe up has started is for {stack.address}/api" in done.stderr
    assert len(stack.client.post("/automations/filter", json={}).json()) == 2
    limit = stack.client.get("/v2/concurrency_limits/gpu").json()
    assert (limit["limit"], limit["active"], limit["active_slots"]) == (1, True, 0)
    (nightly,) = (one for one in again if one["name"] == "nightly")
    (schedule,) = nightly["schedules"]
    assert schedule["schedule"] == {
        "cron": "0 2 * * *",
        "timezone": "Europe/Berlin",
        "day_or": True,
    }
    line = stack.doctor_on_prefect(PREFECT_API_URL=f"{stack.address}/api")
    assert line.startswith("ok")
    assert "9 deployments" in line
    assert httpx.get(f"{stack.address}/api/admin/version").status_code == 401
    line = stack.doctor_on_prefect(
        PREFECT_API_URL=f"{stack.address}/api", PREFECT_API_AUTH_STRING=""
    )
    assert line.startswith("fail")
    assert "PREFECT_API_AUTH_STRING" in line


def test_deployments_can_go_to_a_pool_of_gpu_nodes(stack):
    template = json.loads((ROOT / "docker" / "kubernetes-gpu.json").read_text())
    pool = {"name": "gpu-nodes", "type": "kubernetes", "base_job_template": template}
    stack.client.post("/work_pools/", json=pool).raise_for_status()
    done = stack.cotpipe("up", "--port", str(stack.port), "--pool", "gpu-nodes")
    assert done.returncode == 0, done.stderr
    found = stack.client.get("/deployments/name/nightly/nightly").json()
    assert found["work_pool_name"] == "gpu-nodes"
    made = stack.client.get("/work_pools/gpu-nodes").json()["base_job_template"]
    assert made["job_configuration"]["env"]["COTPIPE_GPU_LIMIT"] == "gpu"
    for given in (
        {"command": "id"},
        {"env": {"PATH": "/tmp"}},
        {"image": "attack"},
        {"secret_name": "another"},
        {"service_account_name": "admin"},
        {"namespace": "another"},
    ):
        answer = stack.client.post(
            f"/deployments/{found['id']}/create_flow_run", json={"job_variables": given}
        )
        assert answer.status_code == 422
    stack.up()
    assert (
        stack.client.get("/deployments/name/nightly/nightly").json()["work_pool_name"] == "cotpipe"
    )


def test_the_server_refuses_what_the_recipe_refuses(stack):
    found = stack.client.get("/deployments/name/curriculum/curriculum").json()
    small = stages_with("stage2", "trainer", group_size=1)
    own = stages_with("stage1", "examples", masks={"kind": "masks.py:mine"})
    for recipe, part in (
        (small, "minimum of 2"),
        (own, "not valid under"),
        ({"stage9": {}}, "stage9"),
    ):
        answer = stack.client.post(
            f"/deployments/{found['id']}/create_flow_run", json={"parameters": {"recipe": recipe}}
        )
        assert answer.status_code == 409
        assert part in answer.text


def test_a_failed_run_is_retried_and_taken_up_by_a_stages_deployment(stack):
    teacher = {"engine": "openai", "model": "scripted", "max_rejected_share": 1.0, "min_steps": 1}
    failed = stack.start("curriculum", {"teacher": teacher, "seed": 4}, until="lessons")
    run = stack.wait(failed)
    assert run["state"]["type"] == "FAILED"
    assert "COTPIPE_SERVERS" in run["state"]["message"]
    stack.wait_for_tasks(failed, {"problems": "Completed", "rationales": "Failed"})
    record = read_runs(open_store(Settings(store=str(stack.store))).storage)[-1]
    assert record.outcome == "failed"
    with ScriptedModel(
        lambda messages, body: "Step 1: a\nStep 2: b\nAnswer: 1", port=stack.teacher_port
    ):
        staged = stack.start("stage1", {}, student=False, start_from=record.run_id)
        assert stack.wait(staged)["state"]["type"] == "COMPLETED"
        stack.set_state(failed, "SCHEDULED", "AwaitingRetry")
        assert stack.wait(failed, "COMPLETED")["run_count"] == 2
    stack.wait_for_tasks(
        staged, {"problems": "Cached", "rationales": "Completed", "stage1": "Completed"}
    )
    stack.wait_for_tasks(
        failed, {"problems": "Cached", "rationales": "Cached", "lessons": "Cached"}
    )
    retried = read_runs(open_store(Settings(store=str(stack.store))).storage)
    assert [one.outcome for one in retried if one.run_id == record.run_id] == [
        "completed"
    ]  # the same record goes on


def test_two_runs_never_hold_the_one_gpu_together(stack):
    runs = [stack.start("stage1", {"seed": seed}, refresh=[]) for seed in (11, 12)]
    assert [stack.wait(run)["state"]["type"] for run in runs] == ["COMPLETED", "COMPLETED"]
    store = open_store(Settings(store=str(stack.store)))
    first, second = sorted(map(interval, store.records("stage1")))[-2:]
    assert first[1] <= second[0] + timedelta(seconds=1.5)  # records are written to the second
    prepared = sorted(interval(record)[1] for record in store.records("lessons"))[-2:]
    assert all(end < first[1] for end in prepared)  # what needs no GPU did not wait for it


def interval(record: Record) -> tuple[datetime, datetime]:
    end = datetime.fromisoformat(record.made_at)
    return end - timedelta(seconds=record.seconds), end


def test_cancelling_ends_the_training_and_frees_the_gpu(stack):
    run = stack.start("stage1", LONG | {"seed": 21}, refresh=[])
    stack.wait_for_training_state("stage1")
    assert stack.training()
    stack.set_state(run, "CANCELLING", "Cancelling")
    psutil.wait_procs(stack.training(), timeout=PATIENCE)
    assert not stack.training()
    for _ in polls():
        if stack.client.get("/v2/concurrency_limits/gpu").json()["active_slots"] == 0:
            break
    assert stack.client.get("/v2/concurrency_limits/gpu").json()["active_slots"] == 0
    assert stack.wait(run)["state"]["type"] == "CANCELLED"
    # It goes on from the training state.
    again = stack.start("stage1", LONG | {"seed": 21}, refresh=[])
    assert stack.wait(again)["state"]["type"] == "COMPLETED"


def test_a_run_outlives_its_server_and_its_worker(stack):
    run = stack.start("stage1", LONG | {"seed": 31}, refresh=[])
    stack.wait_for_training_state("stage1")
    stack.kill("worker")
    assert not stack.training()
    stack.up()
    stack.wait(run, "CRASHED", "SCHEDULED", "PENDING")  # its heartbeats are missed
    for _ in polls():  # and taken up by the next worker
        if stack.run(run)["run_count"] == 2 and stack.training():
            break
    assert stack.run(run)["run_count"] == 2
    stack.kill("server")
    stack.up()
    assert stack.training()
    done = stack.wait(run, "COMPLETED", "FAILED", "CRASHED")
    assert done["state"]["type"] == "COMPLETED"
    assert done["run_count"] == 2
    stack.wait_for_tasks(run, {"problems": "Cached", "lessons": "Cached", "stage1": "Completed"})


def test_of_two_nights_at_once_the_second_waits_and_says_so(stack):
    inbox = stack.store / "inbox"
    inbox.mkdir(parents=True, exist_ok=True)
    rows = (
        f'{{"question": "Box {number}?", "answer": "Box.\\nNumber.\\n#### 7"}}\n'
        for number in range(60)
    )
    (inbox / "new.jsonl").write_text("".join(rows))
    first = stack.start("nightly", {"seed": 41})
    stack.wait(first, "RUNNING")
    second = stack.start("nightly", {"seed": 41})
    for _ in polls():
        if stack.run(second)["state"]["name"] == "AwaitingConcurrencySlot":
            break
    assert stack.run(second)["state"]["name"] == "AwaitingConcurrencySlot"
    ended = stack.wait(first)
    assert ended["state"]["name"] in ("Promoted", "Kept")
    assert "new.jsonl: taken in as problems/" in stack.logs(first)
    assert "night" in stack.artifacts(first)
    ended = stack.wait(second)
    assert (ended["state"]["name"], ended["state"]["type"]) == ("Skipped", "COMPLETED")
    assert "nothing new in" in ended["state"]["message"]
