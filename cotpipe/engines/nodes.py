"""The nodes of a Ray cluster: what they have, and whether they can make shards of a run."""

import importlib.metadata
import pickle
import platform
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from cotpipe.errors import RunError, UserError, first_line
from cotpipe.settings import Settings
from cotpipe.store.artifacts import open_storage

SECONDS_TO_LOOK = 300.0  # a busy node takes long to start a process with its libraries
_SECONDS_TO_REACH = 10.0


@dataclass(frozen=True)
class Node:
    """A node that is up."""

    id: str
    name: str
    cpus: float
    gpus: float


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
class Needs:
    """What every node has to reach: the store, and Prefect's server, to which shards are reported."""

    settings: Settings
    mark: str  # the name of a file that was just written to the store
    server: str | None

    def missing(self) -> str:
        """What this process does not reach, and the way out; empty if all is there."""
        try:
            seen = open_storage(here(self.settings)).read(self.mark) is not None
            why = "does not see the store"
        except (UserError, RunError) as error:
            seen, why = False, f"cannot use the store ({error})"
        if not seen:
            return (
                f"{why}; set COTPIPE_STORE to a place that all nodes see: s3://..., or a folder that "
                "all of them mount under this path"
            )
        try:
            if self.server:
                httpx.get(f"{self.server.rstrip('/')}/health", timeout=_SECONDS_TO_REACH)
        except httpx.HTTPError as error:
            return (
                f"does not reach Prefect's server at {self.server} ({error}); set PREFECT_API_URL to a "
                "server that all nodes reach"
            )
        return ""


@contextmanager
def needs_of_nodes(settings: Settings, server: str | None) -> Iterator[Needs]:
    """What every node has to reach during the `with` block."""
    storage, mark = open_storage(settings), f"ray-{uuid.uuid4().hex[:8]}"
    storage.replace(mark, b"written by cotpipe, for the nodes of a Ray cluster to see")
    try:
        yield Needs(for_nodes(settings), mark, server)
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


def look_at(node: Node, needs: Needs) -> Any:
    """Start looking at a node's versions and at what it reaches; a reference for `verdict`."""
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
        return theirs, pickle.loads(sent).missing()  # noqa: S301  # from this run's own process

    there = NodeAffinitySchedulingStrategy(node.id, soft=False)
    task = ray.remote(at_node).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
    return task.remote(versions(), _PACKAGES, pickle.dumps(needs))


_PACKAGES = {"cotpipe": "cotpipe", "Prefect": "prefect", "Ray": "ray"}


def versions() -> dict[str, str]:
    """What has to be the same on all nodes."""
    found = {shown: importlib.metadata.version(package) for shown, package in _PACKAGES.items()}
    return found | {"Python": ".".join(platform.python_version_tuple()[:2])}


def verdict(node: Node, look: Any) -> str:
    """Why a node cannot make shards of this run; empty if it can."""
    import ray

    try:
        theirs, missing = ray.get(look, timeout=0)
    except ray.exceptions.GetTimeoutError:
        return f"node {node.name} has started no process in {SECONDS_TO_LOOK:g} s; see its Ray logs"
    except ray.exceptions.RayTaskError as error:
        return f"node {node.name} cannot run cotpipe: {first_line(error.cause)}; see its Ray logs"
    except ray.exceptions.RayError as error:
        return f"node {node.name} could not be looked at: {first_line(error)}"
    ours = versions()
    if differ := [name for name in ours if theirs[name] != ours[name]]:
        told = ", ".join(f"{name} {theirs[name]}, this run {ours[name]}" for name in differ)
        return f"node {node.name} has {told}; install the same version on both"
    return f"node {node.name} {missing}" if missing else ""
