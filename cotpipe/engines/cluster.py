"""A Ray cluster: whether it answers, and whether it can make shards."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from cotpipe.engines.nodes import (
    SECONDS_TO_LOOK,
    engines_of,
    living_nodes,
    look_at,
    needs_of_nodes,
    verdict,
)
from cotpipe.errors import UserError
from cotpipe.settings import Settings

_SECONDS_TO_ANSWER = 10.0
_CLIENT = "ray://"
QUIET: dict[str, Any] = {
    "log_to_driver": False,
    "logging_level": logging.ERROR,
    "configure_logging": False,
}
"""Arguments of `ray.init`: what nodes print stays in their logs."""


def require_cluster(settings: Settings, server: str | None) -> str:
    """Look whether the cluster that is set can make shards; a line about it, empty if none is set.

    Args:
        settings: With the address.
        server: Prefect's server (the URL of its API), which every node has to reach; None if there
            is none yet.

    Raises `UserError` if it does not answer, or if a node has another version of cotpipe, Python or
    Ray, or does not reach the store or the server.
    """
    if not settings.ray_address:
        return ""
    require_answer(settings.ray_address)
    import ray

    with _connected(settings.ray_address), needs_of_nodes(settings, server) as needs:
        nodes = living_nodes()
        looks = {node: look_at(node, needs) for node in nodes}
        ray.wait(list(looks.values()), num_returns=len(looks), timeout=SECONDS_TO_LOOK)
        if wrong := [why for node, look in looks.items() if (why := verdict(node, look))]:
            raise UserError("; ".join(wrong))
        engines = sum(engines_of(node, nodes, settings) for node in nodes)
    if not engines:
        raise UserError(without_room(settings))
    return f"{settings.ray_address} has {len(nodes)} nodes with room for {engines} engines"


def without_room(settings: Settings) -> str:
    """What is wrong with a cluster that has no room for an engine."""
    return (
        f"COTPIPE_RAY_ADDRESS: no node of {settings.ray_address} has {settings.tensor_parallel} GPUs "
        f"(COTPIPE_TENSOR_PARALLEL), or without GPUs {settings.ray_cpus} CPUs (COTPIPE_RAY_CPUS); "
        "lower the number, or add nodes"
    )


def require_answer(address: str) -> None:
    """Raise `UserError` unless a Ray cluster answers at an address, within seconds.

    `ray.init` itself tries for minutes.
    """
    if find_spec("ray") is None or find_spec("prefect_ray") is None:
        raise UserError(
            "COTPIPE_RAY_ADDRESS is set, but Ray is not installed; pip install 'cotpipe[ray]', or "
            "unset it"
        )
    import grpc
    from ray._private.grpc_utils import init_grpc_channel

    is_client = address.startswith(_CLIENT)
    method = (
        "/ray.rpc.RayletDriver/ClusterInfo"
        if is_client
        else "/ray.rpc.NodeInfoGcsService/GetClusterId"
    )
    with init_grpc_channel(address.removeprefix(_CLIENT)) as channel:
        try:
            channel.unary_unary(method)(b"", timeout=_SECONDS_TO_ANSWER, wait_for_ready=True)
        except grpc.RpcError as error:
            code = error.code()
            if is_client and code is grpc.StatusCode.NOT_FOUND:
                return  # a question without a session is refused, by a Ray client server
            said = (
                f"no Ray cluster answers within {_SECONDS_TO_ANSWER:g} seconds"
                if code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
                else f"what answers is not a Ray head ({code.name.lower()})"
            )
            raise UserError(
                f"COTPIPE_RAY_ADDRESS: {address}: {said}; start it (ray start --head), correct the "
                "address (HOST:6379 on one of its nodes, ray://HOST:10001 elsewhere), or unset it"
            ) from error


@contextmanager
def _connected(address: str) -> Iterator[None]:
    import ray

    if ray.is_initialized():
        yield
        return
    with connecting(address):
        ray.init(address, **QUIET)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def connecting(address: str) -> Iterator[None]:
    """Errors of connecting as `UserError`s; Ray's handler of SIGTERM, which would replace ours, goes."""
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if in_main else None
    try:
        yield
    except (
        RuntimeError,
        ConnectionError,
        ValueError,
    ) as error:  # of another version, or gone again
        said = " ".join(str(error).split())[:500]
        raise UserError(f"COTPIPE_RAY_ADDRESS: {address}: {said}") from error
    finally:
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)
