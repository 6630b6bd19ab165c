"""Shards on a Ray cluster: engines that stay for a step, and the shards that they are given.

A shard is a Prefect task on the node of its engine. It takes the shard's lease and commits it there,
so a shard that a lost node had finished is found in the store, and one that it had begun is made
again elsewhere.
"""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import ray
from prefect.settings import PREFECT_API_URL
from prefect_ray import RayTaskRunner
from prefect_ray.context import remote_options
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cotpipe.engines.actors import EngineLostError, RemoteEngine, start_engine
from cotpipe.engines.cluster import QUIET, connecting, require_answer, without_room
from cotpipe.engines.nodes import (
    Node,
    engines_of,
    for_nodes,
    here,
    living_nodes,
    look_at,
    needs_of_nodes,
    verdict,
)
from cotpipe.engines.source import Source
from cotpipe.errors import RunError, TransientError, UserError, first_line
from cotpipe.progress import Silent
from cotpipe.recipe.model import Recipe
from cotpipe.settings import Settings
from cotpipe.steps.generate import Shard, ShardStep
from cotpipe.steps.runner import Job, Outcome, StepRunner
from cotpipe.store.artifacts import open_store
from cotpipe.store.lookup import READS_AT_ONCE
from cotpipe.store.records import Reference
from tasks.shards import generate, in_threads

_ATTEMPTS = 3
_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_TO_CLOSE = 30.0


def make_here(shard: Shard, settings: Settings, shard_of: Reference | None, actor: Any) -> Outcome:
    """Make or reuse a shard on the node that it has come to; raises as `StepRunner.run` does.

    Args:
        shard: What is asked.
        settings: Those of the run.
        shard_of: The artifact that is being refreshed, if the shard is a part of it.
        actor: The engine's, which is not on another node.
    """
    own = here(settings)
    runner = StepRunner(open_store(own, check=False), own, Silent())
    return runner.run(shard.step(RemoteEngine(actor)), Recipe(), {}, shard_of=shard_of)


@dataclass
class _Engine:
    """An actor, and what is awaited of it: that it opens, or a shard."""

    node: Node
    actor: Any
    awaited: Any  # a Ray reference; None while it is idle
    shard: int | None = None
    future: Any = None  # the task of the shard


class Cluster:
    """The cluster for the time of one step; connected on first use."""

    def __init__(self, settings: Settings, note: Callable[[str], None]) -> None:
        assert settings.ray_address
        self._settings, self._note, self._address = settings, note, settings.ray_address
        self._stack = ExitStack()
        self._runner: Any = None
        self._needs: Any = None
        self._looks: dict[str, Any] = {}  # references, by node
        self._verdicts: dict[str, str] = {}  # why a node is not used, by node; empty: it is
        self._endings: Counter[str] = Counter()  # of engines that never opened, by node
        self._has_begun = False  # from then on, a lack of nodes is a loss, and may heal
        self._source: Source | None = None
        self._engines: list[_Engine] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def side_by_side(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Run the jobs of a step's shards: here what the store has or servers answer, the rest there.

        All shards run before the first failure is raised, but no more after a `RunError`.
        """
        with ThreadPoolExecutor(READS_AT_ONCE) as pool:
            goes = list(pool.map(_goes_away, jobs))
        outcomes = in_threads({n: job for n, job in enumerate(jobs) if not goes[n]})
        if away := {n: job for n, job in enumerate(jobs) if goes[n]}:
            self._connect()
            outcomes |= self._make(away)
        return [outcomes[number] for number in range(len(jobs))]

    def _connect(self) -> None:
        if self._runner:
            return
        require_answer(self._address)
        self._needs = self._stack.enter_context(
            needs_of_nodes(self._settings, PREFECT_API_URL.value())
        )
        runner: Any = RayTaskRunner(self._address, init_kwargs=dict(QUIET))
        self._stack.callback(ray.shutdown)  # the runner leaves a client connected
        with connecting(self._address):
            self._runner = self._stack.enter_context(runner)
        self._stack.callback(self._end_engines)

    def _make(self, jobs: dict[int, Job]) -> dict[int, Outcome]:
        left, lost = deque(jobs), Counter[int]()
        outcomes: dict[int, Outcome] = {}
        failures: list[Exception] = []
        self._use(_source_of(next(iter(jobs.values()))))
        while left or any(engine.shard is not None for engine in self._engines):
            self._staff(len(left))
            for engine in self._engines:
                if engine.awaited is None and left:
                    number = left.popleft()
                    self._give(engine, number, jobs[number])
            for engine in self._settled():
                if engine.shard is None:
                    self._opened(engine)
                    continue
                number, found = engine.shard, self._result(engine)
                if isinstance(found, Outcome):
                    outcomes[number] = found
                    jobs[number].done()
                elif not isinstance(found, EngineLostError):
                    failures.append(found)
                elif lost[number] + 1 < _ATTEMPTS:
                    lost[number] += 1
                    left.appendleft(number)  # one that ends every engine is found out soon
                    self._note(f"shard {number} is made again: {first_line(found)}")
                else:
                    failures.append(_lost(number, found))
            if any(isinstance(one, RunError) for one in failures):
                left.clear()
        if failures:
            raise failures[0]
        return outcomes

    def _use(self, source: Source) -> None:
        """Engines of another model make room."""
        if source != self._source:
            self._end_engines()
            self._source = source

    def _staff(self, num_left: int) -> None:
        """Look at nodes that have joined, forget those that are gone, start engines where there is room."""
        nodes = {node.id: node for node in living_nodes()}
        for node in nodes.values():
            if node.id not in self._looks:
                self._looks[node.id] = look_at(node, self._needs)
            look = self._looks[node.id]
            if node.id not in self._verdicts and ray.wait([look], timeout=0)[0]:
                self._verdicts[node.id] = why = verdict(node, look)
                if why:
                    self._note(f"not used: {why}")
        self._engines = [
            engine
            for engine in self._engines
            if engine.shard is not None or engine.node.id in nodes
        ]
        room = num_left - sum(engine.shard is None for engine in self._engines)
        for node in nodes.values():
            if self._verdicts.get(node.id) != "":
                continue
            there = sum(engine.node.id == node.id for engine in self._engines)
            for _ in range(
                min(engines_of(node, list(nodes.values()), self._settings) - there, room)
            ):
                self._start(node)
                room -= 1
        if not self._engines and all(node in self._verdicts for node in nodes):
            reasons = [why for node in nodes if (why := self._verdicts[node])]
            text = "; ".join(reasons) or without_room(self._settings)
            raise TransientError(text) if self._has_begun else UserError(text)

    def _start(self, node: Node) -> None:
        assert self._source
        self._note(f"starting an engine on {node.name}")
        actor = start_engine(self._source, node, self._settings)
        self._engines.append(_Engine(node, actor, actor.open.remote()))

    def _give(self, engine: _Engine, number: int, job: Job) -> None:
        assert isinstance(job.step, ShardStep)
        settings = for_nodes(self._settings)
        make = partial(make_here, job.step.pack(), settings, job.shard_of, engine.actor)
        there = NodeAffinitySchedulingStrategy(engine.node.id, soft=False)
        with remote_options(num_cpus=0, max_retries=0, scheduling_strategy=there):
            engine.future = self._runner.submit(generate, {"number": number, "make": make})
        engine.awaited, engine.shard = engine.future.wrapped_future, number

    def _settled(self) -> list[_Engine]:
        """The engines that have opened, or ended a shard; waits a second for one."""
        awaited = [one.awaited for one in self._engines if one.awaited is not None]
        awaited += [look for node, look in self._looks.items() if node not in self._verdicts]
        if not awaited:
            return []
        ready = set(ray.wait(awaited, timeout=_SECONDS_BETWEEN_LOOKS)[0])
        return [one for one in self._engines if one.awaited in ready]

    def _opened(self, engine: _Engine) -> None:
        """An engine is ready, or could not be; raises what is wrong with its model."""
        try:
            for line in ray.get(engine.awaited):
                self._note(f"{line}, on {engine.node.name}")
            engine.awaited, self._has_begun = None, True
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:  # the process or the node is gone
            self._engines.remove(engine)
            self._endings[engine.node.id] += 1
            if self._endings[engine.node.id] == _ATTEMPTS:
                self._verdicts[engine.node.id] = (
                    f"engines on node {engine.node.name} end before they are ready "
                    f"({first_line(error)}); see its Ray logs: memory may have run out"
                )

    def _result(self, engine: _Engine) -> Outcome | Exception:
        """What came of the engine's shard; an engine that is gone is forgotten."""
        future = engine.future
        future.wait()
        found: Any = future.result(raise_on_failure=False)
        if future.state.is_crashed():
            found = EngineLostError(f"node {engine.node.name}: {first_line(found)}")
        if isinstance(found, EngineLostError):
            self._engines.remove(engine)
            ray.kill(engine.actor)
        engine.awaited = engine.shard = engine.future = None
        return found  # type: ignore[no-any-return]

    def _end_engines(self) -> None:
        idle = [engine.actor.close.remote() for engine in self._engines if engine.awaited is None]
        if idle:
            ray.wait(idle, num_returns=len(idle), timeout=_SECONDS_TO_CLOSE)
        for engine in self._engines:
            ray.kill(engine.actor)
        self._engines = []


def _goes_away(job: Job) -> bool:
    step = job.step
    return isinstance(step, ShardStep) and not step.source.is_served and not job.is_there()


def _source_of(job: Job) -> Source:
    assert isinstance(job.step, ShardStep)
    source = job.step.source
    return replace(source, settings=for_nodes(source.settings))


def _lost(number: int, error: EngineLostError) -> RunError:
    return RunError(
        f"shard {number}: its engine ended {_ATTEMPTS} times ({first_line(error)}); see the Ray logs of "
        "its nodes: memory may have run out"
    )
