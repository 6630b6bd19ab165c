"""Slots for GPUs: work that needs one holds a slot of a global concurrency limit, so that two runs never share it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from cotpipe.config import Recipe
from cotpipe.errors import TransientError, UserError
from cotpipe.settings import Settings

_LEASE_SECONDS = 60  # a killed holder's slots are free again after this time


def gpus_of(kind: str, recipe: Recipe, settings: Settings) -> int:
    """How many GPUs the step `kind` takes: none for what only reads, counts, or asks a server."""
    if kind in ("stage1", "stage2", "stage3"):
        return settings.num_processes
    if kind == "failures" or kind.startswith("evaluation-"):
        return settings.tensor_parallel
    asks_a_model_here = kind == "rationales" and recipe.teacher.engine not in ("reference", "openai")
    return settings.tensor_parallel if asks_a_model_here else 0


@contextmanager
def gpu_slots(count: int, settings: Settings, note: Callable[[str], None]) -> Iterator[None]:
    """Hold `count` slots of the limit `settings.gpu_limit`, waiting for them; nothing where no limit is set.

    Raises `UserError` where the limit does not exist or has fewer slots, `TransientError` where Prefect is away.
    """
    name = settings.gpu_limit
    if not count or name is None:
        yield
        return
    with ExitStack() as held:
        try:
            _require(name, count)
            note(f"waits for {count} of the GPU slots {name!r}")
            held.enter_context(
                concurrency(
                    name,
                    occupy=count,
                    strict=True,
                    lease_duration=_LEASE_SECONDS,
                    raise_on_lease_renewal_failure=False,  # a server that restarts must not end a training
                )
            )
        except (httpx.TransportError, PrefectHTTPStatusError) as error:
            raise TransientError(f"Prefect's server gives no GPU slot ({error}); see to the server") from error
        yield


def _require(name: str, count: int) -> None:
    with get_client(sync_client=True) as client:
        try:
            limit = client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound as error:
            raise UserError(
                f"COTPIPE_GPU_LIMIT: the server has no global concurrency limit {name!r}; `cotpipe up` makes it, or: "
                f"prefect gcl create {name} --limit 1"
            ) from error
    if limit.limit < count:
        raise UserError(
            f"the step needs {count} GPUs at once and the limit {name!r} has {limit.limit}; lower "
            f"COTPIPE_NUM_PROCESSES and COTPIPE_TENSOR_PARALLEL, or raise it: cotpipe up --gpus {count}"
        )
