"""What the UI is told of a step that takes long, whoever reports it, and however the server is."""

import asyncio
import threading

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.logging import get_logger, get_run_logger

import tasks.progress
from cotpipe.errors import TransientError
from tasks.progress import StepProgress
from tests.helpers.polling import polls


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(tasks.progress, "_SECONDS_BETWEEN_UPDATES", 0.2)


def progress_of(key: str) -> tuple[object, str | None]:
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
            assert progress_of("progress-deep-file-csv") == (
                75.0,
                "Deep/file.csv: 3 of 4  loss 0.5",
            )
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
            for _ in polls():
                if tried:
                    break
        return "done"

    @flow
    def run() -> str:
        return step()

    assert run() == "done"
    assert tried


def lines_of(monkeypatch, capfd, work) -> list[str]:
    """What a step writes to a standard error that is no terminal, where the run's log is not shown."""
    monkeypatch.setattr(tasks.progress, "_SECONDS_BETWEEN_LINES", 0.2)

    @task
    def step() -> None:
        get_run_logger().logger.setLevel("CRITICAL")
        with StepProgress("step") as progress:
            work(progress)
            progress.finish("3 kept")

    @flow
    def run() -> None:
        step()

    level = get_logger("prefect.task_runs").level
    try:
        run()
    finally:
        get_logger("prefect.task_runs").setLevel(level)
    return [line for line in capfd.readouterr().err.splitlines() if line.startswith("step ")]


def test_a_step_that_reports_nothing_is_seen_to_run(prefect, monkeypatch, capfd):
    def work(progress: StepProgress) -> None:
        progress(1, 9, {"loss": 0.25})
        threading.Event().wait(2)

    lines = lines_of(monkeypatch, capfd, work)
    assert [line.split("  ")[-1] for line in lines[:1] + lines[-1:]] == ["started", "3 kept"]
    same = [line for line in lines if line.endswith("1 of 9  loss 0.25")]
    assert 3 <= len(same) <= 6  # at every second chance
    assert same[-1].split()[1] == "0:00:01"


def test_figures_that_change_often_are_few_lines(prefect, monkeypatch, capfd):
    def work(progress: StepProgress) -> None:
        for done in range(1000):
            progress(done, 1000, {"loss": 0.25})
            threading.Event().wait(0.001)

    assert 3 <= len(lines_of(monkeypatch, capfd, work)) <= 15


def test_a_step_that_may_be_tried_again_says_why(prefect, monkeypatch, capfd):
    def work(progress: StepProgress) -> None:
        raise TransientError("the server is lost")

    with pytest.raises(TransientError):
        lines_of(monkeypatch, capfd, work)
    assert "failed: the server is lost" in capfd.readouterr().err
