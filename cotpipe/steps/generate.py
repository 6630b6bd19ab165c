"""Generation in shards.

Each shard is an artifact, so a crash loses at most the shards in progress, and no answer is
generated twice.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from cotpipe.data.rows import Generation, read_rows, write_rows
from cotpipe.engines.base import Engine, Generated, Request, Sampling
from cotpipe.engines.source import Source
from cotpipe.errors import RunError, UserError
from cotpipe.progress import Progress
from cotpipe.steps.sharding import shards_of
from cotpipe.steps.step import Step, Work
from cotpipe.store.records import SHARDS, digest

_FILE = "generations.parquet"
_VERSION = 3


Requests = Callable[[Sequence[int]], list[Request]]
"""Builds the requests at some positions, whenever they are needed, so that few are in memory."""


def generate(
    work: Work,
    engine: "SharedEngine",
    identity: Mapping[str, Any],
    ids: Sequence[str],
    requests: Requests,
    sampling: Sampling,
) -> Iterator[tuple[list[int], list[list[Generated]]]]:
    """Answer every request in shards, then yield shard by shard: positions, samples of each.

    The order is that of the ids' hashes, whatever the size of a shard is (see `sharding`).

    Args:
        work: The work of the calling step; the shards become parts of its artifact.
        engine: The engine that generates, opened only if a shard is missing.
        identity: Identifies the model. A shard's fingerprint covers it, the requests and the
            sampling parameters, so any step with the same requests reuses the shard.
        ids: The ids of the problems to ask about, one per request.
        requests: Builds the requests at positions in `ids`; called from any thread.
        sampling: Sampling parameters.
    """
    shards = shards_of(ids, work.settings.shard_size)
    total = _Total(work.progress, [len(shard) * sampling.num_samples for shard in shards])
    steps = [
        _shard(shard, requests, dict(identity), sampling, engine, _ShardProgress(total, number))
        for number, shard in enumerate(shards)
    ]
    for shard, file in zip(shards, work.shards(steps, _FILE, total.complete), strict=True):
        yield shard, _read(file, len(shard), sampling)


def _shard(
    positions: Sequence[int],
    requests: Requests,
    identity: dict[str, Any],
    sampling: Sampling,
    engine: "SharedEngine",
    progress: Progress,
) -> "ShardStep":
    """The step that answers the requests at some positions."""
    fields = {
        "answered_by": identity,
        "sampling": asdict(sampling) | {"stop": list(sampling.stop)},
        "requests": digest([[one.problem_id, one.prompt] for one in requests(positions)]),
    }

    def pack() -> Shard:
        return Shard(fields, requests(positions), sampling)

    def run(work: Work) -> dict[str, int]:
        return pack().write(work, engine, progress)

    return ShardStep(
        SHARDS, _VERSION, (), lambda recipe: fields, run, source=engine.source, pack=pack
    )


@dataclass(frozen=True, kw_only=True)
class ShardStep(Step):
    """The step that makes one shard; packed, another machine can do it."""

    source: Source
    pack: Callable[[], "Shard"]


@dataclass(frozen=True)
class Shard:
    """What one shard asks, ready to travel to another machine."""

    fields: dict[str, Any]  # all that decides its content
    requests: list[Request]
    sampling: Sampling

    def write(self, work: Work, engine: Engine, progress: Progress) -> dict[str, int]:
        """Answer all requests, and write the answers to the output of the shard's work."""
        answers = engine.generate(self.requests, self.sampling, progress)
        rows = [
            Generation(
                request.problem_id, number, one.text, one.thoughts, one.num_tokens, one.truncated,
                one.refused,
            )
            for request, samples in zip(self.requests, answers, strict=True)
            for number, one in enumerate(samples)
        ]  # fmt: skip
        write_rows(work.output / _FILE, Generation, rows)
        return {"answers": len(rows), "tokens": sum(row.num_tokens for row in rows)}

    def step(self, engine: Engine) -> Step:
        """The step that makes it where it has come to."""

        def run(work: Work) -> dict[str, int]:
            return self.write(work, engine, work.progress)

        return Step(SHARDS, _VERSION, (), lambda recipe: self.fields, run)


def _read(file: Path, num_requests: int, sampling: Sampling) -> list[list[Generated]]:
    answers = [
        Generated(row.text, row.num_tokens, row.truncated, row.thoughts, row.refused)
        for row in read_rows(file, Generation)
    ]
    size = sampling.num_samples
    assert len(answers) == num_requests * size, "a shard answers every request once per sample"
    return [answers[start : start + size] for start in range(0, len(answers), size)]


class SharedEngine:
    """The engine shared by all shards of a step: opened on first use, closed with the step.

    Args:
        source: What is opened.
        tell: Called with a message that names the engine and why it was chosen.
    """

    def __init__(self, source: Source, tell: Callable[[str], None]) -> None:
        self.source, self._tell, self._stack = source, tell, ExitStack()
        self._opening = threading.Lock()
        self._engine: Engine | None = None
        self._broken: UserError | RunError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, progress: Progress
    ) -> list[list[Generated]]:
        """See `Engine.generate`. After a failure, all further shards fail with the same error."""
        with self._opening:
            if self._broken:
                raise self._broken
            try:
                self._engine = self._engine or self._stack.enter_context(
                    self.source.open(self._tell)
                )
            except (UserError, RunError) as error:
                self._broken = error
                raise
        try:
            return self._engine.generate(requests, sampling, progress)
        except RunError as error:
            self._broken = error
            raise


class _Total:
    """The total progress of all shards, including reused ones."""

    def __init__(self, progress: Progress, sizes: Sequence[int]) -> None:
        self.progress, self._sizes = progress, sizes  # answers per shard
        self._done = [0] * len(sizes)
        self._lock = threading.Lock()

    def set(self, shard: int, done: int) -> None:
        """Record how many answers of a shard are done."""
        with self._lock:
            self._done[shard] = done
            self.progress(sum(self._done), sum(self._sizes))

    def complete(self, shard: int) -> None:
        """Record a shard as complete."""
        self.set(shard, self._sizes[shard])


@dataclass(frozen=True)
class _ShardProgress:
    """The `Progress` of one shard, forwarded to that of its step."""

    total: _Total
    shard: int

    def __call__(self, done: int, total: int, figures: Mapping[str, float] = {}) -> None:
        self.total.set(self.shard, done)

    def note(self, text: str) -> None:
        self.total.progress.note(text)

    def log(self, line: str) -> None:
        self.total.progress.log(line)
