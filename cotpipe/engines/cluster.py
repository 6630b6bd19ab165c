"""A Ray cluster: whether it answers, and which of its nodes can make shards."""

import importlib.metadata
import logging
import pickle
import platform
import signal
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cotpipe.errors import RunError, UserError, first_line
from cotpipe.settings import Settings
from cotpipe.store.artifacts import open_storage

_SECONDS_TO_ANSWER = 20.0
_SECONDS_TO_LOOK = 300.0  # a busy node takes long to start a process with its libraries
_CLIENT = "ray://"
QUIET: dict[str, Any] = {
    "log_to_driver": False,
    "logging_level": logging.ERROR,
    "configure_logging": False,
}
"""Arguments of `ray.init`: what nodes print stays in their logs."""


@dataclass(frozen=True)
class Node:
    """A node that is up."""

    id: str
    name: str
    cpus: float
    gpus: float


def require_cluster(settings: Settings) -> str:
    """Look whether the cluster that is set can make shards; a line about it, empty if none is set.

    Raises `UserError` if it does not answer, or if a node has another version of cotpipe, Python or
    Ray, or does not see the store.
    """
    if not settings.ray_address:
        return ""
    require_answer(settings.ray_address)
    import ray

    with _connected(settings.ray_address), seen_store(settings) as sent:
        nodes = living_nodes()
        looks = {node: look_at(node, sent) for node in nodes}
        ray.wait(list(looks.values()), num_returns=len(looks), timeout=_SECONDS_TO_LOOK)
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


def living_nodes() -> list[Node]:
    """The nodes that are up, as the head knows them."""
    import ray

    return [
        Node(
            one["NodeID"],
            f"{one['NodeManagerHostname']} ({one['NodeManagerAddress']}:{one['NodeManagerPort']})",
            one["Resources"].get("CPU", 0),
            one["Resources"].get("GPU", 0),
        )
        for one in ray.nodes()
        if one["Alive"]
    ]


def engines_of(node: Node, nodes: list[Node], settings: Settings) -> int:
    """How many engines a node has room for; if any node has GPUs, engines are on GPUs only."""
    if any(one.gpus for one in nodes):
        return int(node.gpus // settings.tensor_parallel)
    return int(node.cpus // settings.ray_cpus)


@dataclass(frozen=True)
class SentStore:
    """What a node needs to show that it sees the store."""

    settings: Settings
    mark: str  # the name of a file that was just written

    def is_seen(self) -> bool:
        """Whether the file is there for this process. Raises as the store does."""
        return open_storage(here(self.settings)).read(self.mark) is not None


@contextmanager
def seen_store(settings: Settings) -> Iterator[SentStore]:
    """A file in the store, for the `with` block, that every node has to see."""
    storage, mark = open_storage(settings), f"ray-{uuid.uuid4().hex[:8]}"
    storage.replace(mark, b"written by cotpipe, for the nodes of a Ray cluster to see")
    try:
        yield SentStore(for_nodes(settings), mark)
    finally:
        storage.remove(mark)


def for_nodes(settings: Settings) -> Settings:
    """The settings of a run as they go to other machines."""
    place = settings.store
    if "://" not in place:
        place = str(Path(place).absolute())
    return settings.model_copy(update={"store": place})


def here(settings: Settings) -> Settings:
    """The settings of a run on the node that they have come to: the cache is this machine's own."""
    own = Settings()
    return settings.model_copy(update={"cache": own.cache, "cache_gb": own.cache_gb})


def look_at(node: Node, sent: SentStore) -> Any:
    """Start looking at a node's versions and at what it sees; a reference for `verdict`."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # It travels by value and imports what every Python has: it has to run on a node without cotpipe.
    def at_node(
        ours: dict[str, str], names: dict[str, str], sent: bytes
    ) -> tuple[dict[str, str], str]:
        import importlib.metadata
        import pickle
        import platform

        theirs = {}
        for shown, package in names.items():
            try:
                theirs[shown] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                theirs[shown] = "none"
        theirs["Python"] = ".".join(platform.python_version_tuple()[:2])
        if theirs != ours:
            return theirs, ""
        seen = pickle.loads(sent).is_seen()  # noqa: S301  # from this run's own process
        return theirs, "" if seen else "does not see the store"

    there = NodeAffinitySchedulingStrategy(node.id, soft=False)
    task = ray.remote(at_node).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
    return task.remote(versions(), _PACKAGES, pickle.dumps(sent))


_PACKAGES = {"cotpipe": "cotpipe", "Prefect": "prefect", "Ray": "ray"}


def versions() -> dict[str, str]:
    """What has to be the same on all nodes."""
    found = {shown: importlib.metadata.version(package) for shown, package in _PACKAGES.items()}
    return found | {"Python": ".".join(platform.python_version_tuple()[:2])}


def verdict(node: Node, look: Any) -> str:
    """Why a node cannot make shards of this run; empty if it can, or has gone meanwhile."""
    import ray

    try:
        theirs, wrong = ray.get(look, timeout=0)
    except ray.exceptions.GetTimeoutError:
        return (
            f"node {node.name} has started no process in {_SECONDS_TO_LOOK:g} s; see its Ray logs"
        )
    except ray.exceptions.RayTaskError as error:
        if not isinstance(error.cause, (UserError, RunError)):
            return (
                f"node {node.name} cannot run cotpipe: {first_line(error.cause)}; see its Ray logs"
            )
        wrong = f"cannot use the store: {error.cause}"
    except ray.exceptions.RayError as error:
        return f"node {node.name} could not be looked at: {first_line(error)}"
    else:
        ours = versions()
        if differ := [name for name in ours if theirs[name] != ours[name]]:
            told = ", ".join(f"{name} {theirs[name]}, this run {ours[name]}" for name in differ)
            return f"node {node.name} has {told}; install the same version on both"
    if not wrong:
        return ""
    return (
        f"node {node.name} {wrong}; set COTPIPE_STORE to a place that all nodes see: s3://..., or a "
        "folder that is mounted on all of them"
    )
