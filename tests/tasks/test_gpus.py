"""The slots that a step on GPUs holds."""

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

from cotpipe.errors import UserError
from cotpipe.settings import Settings
from tasks.gpus import gpu_slots


def test_slots_for_gpus(prefect):
    settings = Settings(gpu_limit="few")

    def hold(count: int) -> list[str]:
        notes: list[str] = []

        @flow
        def holding() -> None:
            with gpu_slots(count, settings, notes.append), get_client(sync_client=True) as client:
                notes.append(str(client.read_global_concurrency_limit_by_name("few").active_slots))

        holding()
        return notes

    with pytest.raises(
        UserError, match="no global concurrency limit 'few'; create it with `cotpipe up`"
    ):
        hold(2)
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name="few", limit=2))
    assert hold(2) == ["waiting for 2 of the GPU slots 'few'", "2"]
    with pytest.raises(
        UserError, match="needs 3 GPUs at once, but the limit 'few' has 2; .*cotpipe up --gpus 3"
    ):
        hold(3)
