"""An engine on a node of a Ray cluster: an actor that keeps its model from shard to shard."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from cotpipe.engines.base import Engine, Generated, Request, Sampling
from cotpipe.engines.nodes import Node, here
from cotpipe.engines.source import Source
from cotpipe.errors import TransientError
from cotpipe.progress import Progress, Silent
from cotpipe.settings import Settings


class EngineLostError(TransientError):
    """The process or the node of an engine is gone."""


class EngineActor:
    """The process of one engine; it ends with the run that started it."""

    def __init__(self, source: Source) -> None:
        self._source = replace(source, settings=here(source.settings))
        self._stack = ExitStack()
        self._engine: Engine | None = None

    def open(self) -> list[str]:
        """Load the model; returns what is to be told. Raises as `Source.open` does."""
        told: list[str] = []
        self._engine = self._stack.enter_context(self._source.open(told.append))
        return told

    def generate(self, requests: list[Request], sampling: Sampling) -> list[list[Generated]]:
        """See `Engine.generate`."""
        assert self._engine, "opened before"
        return self._engine.generate(requests, sampling, Silent())

    def close(self) -> None:
        """Free what the engine holds."""
        self._stack.close()


def start_engine(source: Source, node: Node, settings: Settings) -> Any:
    """Start an engine's actor on a node; the node reserves its GPUs, or its CPUs where it has none."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    takes = (
        {"num_gpus": settings.tensor_parallel, "num_cpus": 0}
        if node.gpus
        else {"num_cpus": settings.ray_cpus}
    )
    there = NodeAffinitySchedulingStrategy(node.id, soft=False)
    return ray.remote(EngineActor).options(scheduling_strategy=there, **takes).remote(source)


class RemoteEngine:
    """An actor as an `Engine`, for the process that makes a shard."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, progress: Progress
    ) -> list[list[Generated]]:
        """See `Engine.generate`. Raises `EngineLostError` if the actor has ended."""
        import ray

        try:
            answers: list[list[Generated]] = ray.get(
                self._actor.generate.remote(list(requests), sampling)
            )
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None  # without Ray's traceback in its message
        except ray.exceptions.RayActorError as error:
            raise EngineLostError(f"an engine of the cluster has ended: {error}") from error
        return answers
