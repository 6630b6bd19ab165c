"""What Prefect knows of the tasks of a run."""

from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import TaskRun


def task_runs_of(flow_run_id: UUID | None) -> list[TaskRun]:
    """The tasks of one run, as the server of this process knows them."""
    chosen = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id] if flow_run_id else []))
    with get_client(sync_client=True) as client:
        return client.read_task_runs(flow_run_filter=chosen)
