"""What a worker makes of a run's job variables: nothing that someone else has chosen."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.workers.process import ProcessJobConfiguration

from flows.server import job_template


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"command": "touch attacked", "env": {"PATH": "/evil"}, "working_dir": "/"},
        {"env.PATH": "/evil"},
    ],
)
def test_a_run_has_the_workers_command_environment_and_folder(chosen, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.setenv("COTPIPE_GPU_LIMIT", "gpu")

    nobody = PrefectClient("http://127.0.0.1:9/api")  # nothing of this is asked of a server
    job: Any = asyncio.run(
        ProcessJobConfiguration.from_template_and_values(
            base_job_template=job_template(tmp_path), values=chosen, client=nobody
        )
    )
    job.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="a run"))
    assert job.command
    assert job.command.endswith("-m prefect.engine")
    assert (job.env["PATH"], job.env["COTPIPE_GPU_LIMIT"]) == ("/usr/bin", "gpu")
    assert job.working_dir == tmp_path
