"""GPU slots: GPU work holds slots of a global concurrency limit, so runs never share a GPU."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from cotpipe.errors import TransientError, UserError
from cotpipe.settings import Settings

_LEASE_SECONDS = 60  # after this time the slots of a killed holder are released


@contextmanager
def gpu_slots(count: int, settings: Settings, note: Callable[[str], None]) -> Iterator[None]:
    """Wait for and hold `count` slots of `settings.gpu_limit`; does nothing if no limit is set.

    Raises `UserError` if the limit does not exist or has fewer slots, and `TransientError` if the
    Prefect server is unreachable.
    """
    name = settings.gpu_limit
    if not count or name is None:
        yield
        return
    with ExitStack() as held:
        try:
            _require(name, count)
            note(f"waiting for {count} of the GPU slots {name!r}")
            held.enter_context(
                concurrency(
                    name,
                    occupy=count,
                    strict=True,
                    lease_duration=_LEASE_SECONDS,
                    raise_on_lease_renewal_failure=False,  # training survives a server restart
                )
            )
        except (httpx.TransportError, PrefectHTTPStatusError) as error:
            raise TransientError(
                f"cannot get a GPU slot from the Prefect server ({error}); check the server"
            ) from error
        yield


def _require(name: str, count: int) -> None:
    with get_client(sync_client=True) as client:
        try:
            limit = client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound as error:
            raise UserError(
                f"COTPIPE_GPU_LIMIT: the server has no global concurrency limit {name!r}; create it "
                f"with `cotpipe up`, or: prefect gcl create {name} --limit 1"
            ) from error
    if limit.limit < count:
        raise UserError(
            f"the step needs {count} GPUs at once, but the limit {name!r} has {limit.limit}; lower "
            "COTPIPE_NUM_PROCESSES and COTPIPE_TENSOR_PARALLEL, or raise the limit: cotpipe up --gpus "
            f"{count}"
        )
