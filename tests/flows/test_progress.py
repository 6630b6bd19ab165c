"""What the UI is told of a step that takes long, whoever reports it, and however the server is."""

import asyncio

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from stacks import polls

import tasks.progress
from tasks.progress import StepProgress


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(tasks.progress, "_SECONDS_BETWEEN_UPDATES", 0.2)


def progress_of(key: str) -> tuple[float, str]:
    with get_client(sync_client=True) as client:
        chosen = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
        (artifact,) = client.read_artifacts(artifact_filter=chosen)
    assert artifact.task_run_id
    return artifact.data, artifact.description


def test_progress_that_an_event_loop_reports_arrives(prefect):
    @task
    def step() -> None:
        with StepProgress("Deep/file.csv") as progress:

            async def report() -> None:
                for done in range(1, 4):
                    progress(done, 4, {"loss": 0.5, "unknown": 1.0})
                    await asyncio.sleep(0.3)

            asyncio.run(report())
            assert progress_of("progress-deep-file-csv") == (75.0, "Deep/file.csv: 3 of 4  loss 0.5")
            progress.finish("done: 4")

    @flow
    def run() -> None:
        step()

    run()
    assert progress_of("progress-deep-file-csv") == (100.0, "Deep/file.csv: done: 4")


def test_a_server_that_is_away_holds_no_step_up(prefect, monkeypatch):
    import httpx

    tried = []

    def away(*_: object) -> None:
        tried.append(1)
        raise httpx.ConnectError("nobody is there")

    monkeypatch.setattr(tasks.progress, "create_progress_artifact", away)

    @task
    def step() -> str:
        with StepProgress("step") as progress:
            progress(1, 2, {})
            for _ in polls(20):
                if tried:
                    break
        return "done"

    @flow
    def run() -> str:
        return step()

    assert run() == "done"
    assert tried
