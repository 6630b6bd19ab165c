"""Resources on the Prefect server: work pool, GPU slots, and automations for crashed runs."""

import importlib.util
from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect.automations import AutomationCore, EventTrigger, Posture
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitUpdate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

_ATTEMPTS = 3


def prepare_server(
    pool: str, folder: Path, gpu_limit: str, gpus: int | None, silence: timedelta
) -> str:
    """Create the work pool, the GPU limit and the automations if missing. Idempotent.

    Args:
        pool: Name of the work pool.
        folder: The directory in which runs of a process pool work.
        gpu_limit: Name of the global concurrency limit whose slots are the GPUs.
        gpus: Its number of slots; None keeps an existing limit, or counts the GPUs.
        silence: Time without a heartbeat after which a run is marked as crashed.

    Returns:
        The type of the pool.
    """
    with get_client(sync_client=True) as client:
        pool_type = _make_pool(client, pool, folder)
        _make_limit(client, gpu_limit, gpus)
        for automation in (_crash_the_silent(silence), _resume_the_crashed()):
            _make_automation(client, automation)
    return pool_type


def _make_automation(client: SyncPrefectClient, automation: AutomationCore) -> None:
    """Create or replace an automation; keeps an equal one, as a new one misses past events."""
    there = client.read_automations_by_name(automation.name)
    fields = set(AutomationCore.model_fields)
    if any(
        AutomationCore.model_validate(one.model_dump(include=fields)) == automation for one in there
    ):
        return
    for one in there:
        client.delete_automation(one.id)
    client.create_automation(automation)


def _make_pool(client: SyncPrefectClient, pool: str, folder: Path) -> str:
    """Create the pool if it is missing, and give a process pool its template; returns its type."""
    template = job_template(folder)
    try:
        found = client.read_work_pool(pool)
    except ObjectNotFound:
        made = WorkPoolCreate(name=pool, type=ProcessWorker.type, base_job_template=template)
        return client.create_work_pool(made).type
    if found.type == ProcessWorker.type and found.base_job_template != template:
        client.update_work_pool(pool, WorkPoolUpdate(base_job_template=template))
    return found.type


def job_template(folder: Path) -> dict[str, Any]:
    """The job template of a process pool: a run can set neither command nor environment.

    Both come from the worker. What the template does not have as a variable, the server refuses.
    """
    return {
        "job_configuration": {"working_dir": str(folder), "stream_output": True},
        "variables": {"type": "object", "properties": {}, "additionalProperties": False},
    }


def _make_limit(client: SyncPrefectClient, name: str, gpus: int | None) -> None:
    try:
        client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        limit = gpus or _count_gpus()
        client.create_global_concurrency_limit(
            GlobalConcurrencyLimitCreate(name=name, limit=limit, active=True)
        )
    else:
        if gpus:
            client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(limit=gpus))


def _count_gpus() -> int:
    if importlib.util.find_spec("torch") is None:
        return 1
    import torch

    return max(torch.cuda.device_count(), 1)


def _crash_the_silent(silence: timedelta) -> AutomationCore:
    """Mark a run without heartbeats as crashed; otherwise it would stay Running forever."""
    return AutomationCore(
        name="cotpipe: mark silent runs as crashed",
        description="Runs whose heartbeats stop have lost their worker.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.*"},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=silence,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED, name="Crashed", message="no heartbeat from its worker"
            )
        ],
    )


def _resume_the_crashed() -> AutomationCore:
    """Resume a crashed run, a limited number of times; finished steps are reused."""
    return AutomationCore(
        name="cotpipe: resume crashed runs",
        description=f"A crashed run is retried, up to {_ATTEMPTS} attempts in total.",
        trigger=EventTrigger(
            expect={"prefect.flow-run.Crashed"},
            match={
                "prefect.resource.id": "prefect.flow-run.*",
                "prefect.run-count": [str(count) for count in range(1, _ATTEMPTS)],
            },
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.SCHEDULED, name="AwaitingRetry", message="resuming after a crash"
            )
        ],
    )
