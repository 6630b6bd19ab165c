"""Generation in shards: each is an artifact of its own, so that a crash costs one shard and no answer is paid twice."""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Self

from cotpipe.engines.base import Engine, Generated, Report, Request, Sampling
from cotpipe.errors import RunError, UserError
from cotpipe.records import SHARDS, digest
from cotpipe.rows import Generation, read_rows, write_rows
from cotpipe.steps.step import Step, Work

_FILE = "generations.parquet"


def generate(
    work: Work, engine: "SharedEngine", identity: Mapping[str, Any], requests: Sequence[Request], sampling: Sampling
) -> list[list[Generated]]:
    """Answer every request, shard by shard; one list of samples per request, in their order.

    `identity` says who answers: together with the requests and the sampling it names a shard, so shards are reused by
    every step that asks the same.
    """
    size = work.settings.shard_size
    shards = [requests[start : start + size] for start in range(0, len(requests), size)]
    progress = _Progress(work, [len(shard) * sampling.num_samples for shard in shards])
    steps = [
        _shard(shard, dict(identity), sampling, engine, partial(progress.tell, number))
        for number, shard in enumerate(shards)
    ]
    files = work.make(steps, _FILE, progress.tell_all)
    return [samples for shard, file in zip(shards, files, strict=True) for samples in _read(file, len(shard), sampling)]


def _shard(
    requests: Sequence[Request], identity: dict[str, Any], sampling: Sampling, engine: "SharedEngine", report: Report
) -> Step:
    fields = {
        "answered_by": identity,
        "sampling": asdict(sampling) | {"stop": list(sampling.stop)},
        "requests": digest([[request.problem_id, request.prompt] for request in requests]),
    }

    def run(work: Work) -> dict[str, int]:
        answers = engine.generate(requests, sampling, report)
        rows = [
            Generation(request.problem_id, number, one.text, one.thoughts, one.num_tokens, one.truncated)
            for request, samples in zip(requests, answers, strict=True)
            for number, one in enumerate(samples)
        ]
        write_rows(work.output / _FILE, Generation, rows)
        return {"answers": len(rows), "tokens": sum(row.num_tokens for row in rows)}

    return Step(SHARDS, 1, (), lambda recipe: fields, run)


def _read(file: Path, num_requests: int, sampling: Sampling) -> list[list[Generated]]:
    answers = [Generated(row.text, row.num_tokens, row.truncated, row.thoughts) for row in read_rows(file, Generation)]
    size = sampling.num_samples
    assert len(answers) == num_requests * size, "a shard answers every request once per sample"
    return [answers[start : start + size] for start in range(0, len(answers), size)]


class SharedEngine:
    """The engine that all shards of a step share, opened by the first that needs it, closed with the step."""

    def __init__(self, opener: Callable[[], AbstractContextManager[Engine]]) -> None:
        self._opener, self._stack = opener, ExitStack()
        self._opening = threading.Lock()
        self._engine: Engine | None = None
        self._broken: UserError | RunError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def generate(self, requests: Sequence[Request], sampling: Sampling, report: Report) -> list[list[Generated]]:
        """See `Engine.generate`. What could not be opened, or answers no more, is not tried again by other shards."""
        with self._opening:
            if self._broken:
                raise self._broken
            try:
                self._engine = self._engine or self._stack.enter_context(self._opener())
            except (UserError, RunError) as error:
                self._broken = error
                raise
        try:
            return self._engine.generate(requests, sampling, report)
        except RunError as error:
            self._broken = error
            raise


class _Progress:
    """What all shards together have done, reused ones included."""

    def __init__(self, work: Work, sizes: Sequence[int]) -> None:
        self._work, self._sizes = work, sizes
        self._done = [0] * len(sizes)
        self._lock = threading.Lock()

    def tell(self, shard: int, done: int, _: int) -> None:
        """So many answers of a shard are done."""
        with self._lock:
            self._done[shard] = done
            self._work.report(sum(self._done), sum(self._sizes), {})

    def tell_all(self, shard: int) -> None:
        """A shard is there."""
        self.tell(shard, self._sizes[shard], self._sizes[shard])
