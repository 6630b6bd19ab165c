"""Time to list, query, collect and verify a store of many artifacts on a slow S3 server.

    python benchmarks/many.py EMPTY_FOLDER [--artifacts 10000] [--milliseconds 30]

Fills a real S3 server (SeaweedFS) with small artifacts: a tenth are steps of runs, the others shards
that they were made from. The server is then reached through a relay that holds every request back.
Prints the seconds of each command, as its library function; `gc` keeps half of the runs and sets the
other half aside, `gc again` removes it.
"""

import argparse
import asyncio
import io
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1]))

from cotpipe.data.rows import Generation, schema_of
from cotpipe.recipe.files import load_recipe
from cotpipe.runs.catalog import query
from cotpipe.runs.collection import collect_garbage
from cotpipe.runs.garbage import find_garbage
from cotpipe.runs.log import RunLog, read_runs
from cotpipe.runs.upkeep import verify
from cotpipe.store.artifacts import Store, open_store
from cotpipe.store.records import RECORD, SHARDS, Record, Reference, StoredFile, digest
from tests.helpers.s3 import s3_settings, seaweed
from tests.helpers.servers import free_port

_STEPS_PER_RUN = 10
_SHARDS_PER_STEP = 9


class _Relay(asyncio.Protocol):
    """Passes bytes on in one direction, after a delay."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.other: Any = None  # the transport of the other side
        self.early: list[bytes] = []
        self.joining: asyncio.Task[None] | None = None

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().call_later(self.delay, self._send, data)

    def _send(self, data: bytes) -> None:
        if self.other:
            self.other.write(data)
        else:
            self.early.append(data)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self.other:
            self.other.close()


def relay(port: int, upstream: int, delay: float) -> None:
    """Serve as a relay to a local port for ever; only requests are held back, for `delay` seconds."""

    async def serve() -> None:
        loop = asyncio.get_running_loop()

        def connect() -> _Relay:
            client, server = _Relay(delay), _Relay(0.0)

            async def join() -> None:
                client.other, _ = await loop.create_connection(
                    lambda: server, "127.0.0.1", upstream
                )
                server.other = client.transport
                for data in client.early:
                    client.other.write(data)

            client.joining = loop.create_task(join())
            return client

        await (await loop.create_server(connect, "127.0.0.1", port)).serve_forever()

    asyncio.run(serve())


@contextmanager
def slow(address: str, delay: float) -> Iterator[str]:
    """The address of a relay to the server."""
    port = free_port()
    upstream = int(address.rpartition(":")[2])
    process = multiprocessing.Process(target=relay, args=(port, upstream, delay), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()


def fill(store: Store, artifacts: int) -> None:
    """Write artifacts of the same small table directly, and the runs that made them."""
    buffer = io.BytesIO()
    row = {
        "problem_id": "p",
        "sample": 0,
        "text": "t",
        "thoughts": "",
        "num_tokens": 1,
        "truncated": False,
        "refused": "",
    }
    pq.write_table(pa.Table.from_pylist([row], schema=schema_of(Generation)), buffer)
    table = buffer.getvalue()
    file = StoredFile(path="generations.parquet", size=len(table), sha256=sha256(table).hexdigest())

    def write(reference: Reference, parts: list[Reference]) -> None:
        record = Record(
            kind=reference.kind, fingerprint=reference.fingerprint, attempt="0" * 8, step_version=1,
            fields={"some": "settings"}, inputs={}, parts=parts, counts={"rows": 1}, files=[file],
            versions={}, made_at="2026-01-01T00:00:00+00:00", seconds=1.0,
        )  # fmt: skip
        store.storage.replace(f"{record.folder}/{file.path}", table)
        store.storage.replace(f"{reference}/{RECORD}", record.model_dump_json().encode())

    jobs: list[tuple[Reference, list[Reference]]] = []
    recipe = load_recipe("demo")
    for run in range(artifacts // (_STEPS_PER_RUN * (_SHARDS_PER_STEP + 1))):
        steps = []
        for step in range(_STEPS_PER_RUN):
            shards = [
                Reference(kind=SHARDS, fingerprint=digest([run, step, shard]))
                for shard in range(_SHARDS_PER_STEP)
            ]
            steps.append(Reference(kind=f"step-{step}", fingerprint=digest([run, step])))
            jobs += [(steps[-1], shards), *((shard, []) for shard in shards)]
        log = RunLog(store.storage, recipe, suffix=f"{run:08d}")
        log.plan(steps)
        log.finish("completed")
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(write, *zip(*jobs, strict=True)))


def timed(name: str, work: Callable[[], Any]) -> Any:
    """Print how long it took, and return what it did."""
    started = time.monotonic()
    result = work()
    sys.stdout.write(f"{name:<28} {time.monotonic() - started:6.1f} s   {result}\n")
    sys.stdout.flush()
    return result


def answer(store: Store, sql: str) -> str:
    """The first row of a query's result."""
    return str(query(store, sql).fetchall()[0])


def collect(store: Store, keep_runs: int) -> str:
    """One `gc`, without a grace period."""
    look, garbage = find_garbage(store, keep_runs, grace=0)
    removed = collect_garbage(store, look, garbage)
    return f"{len(garbage)} found, {len(removed)} removed"


def main() -> None:
    """Fill the server, and time the commands."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--artifacts", type=int, default=10_000)
    parser.add_argument("--milliseconds", type=float, default=30.0)
    arguments = parser.parse_args()
    server_folder = arguments.folder / "s3"
    server_folder.mkdir(parents=True)
    with seaweed(server_folder) as direct:
        fill(open_store(s3_settings(direct, arguments.folder / "cache")), arguments.artifacts)
        with slow(direct, arguments.milliseconds / 1000) as address:
            settings = s3_settings(address, arguments.folder / "cache", s3_timeout=60)
            store = open_store(settings)
            timed("runs", lambda: f"{len(read_runs(store.storage))} runs")
            for table in ("runs", "artifacts", "generations"):
                counted = f"select count(*) from {table}"  # noqa: S608
                timed(f"sql: {table}", partial(answer, store, counted))
            timed("verify", lambda: f"{len(verify(store, lambda done, total: None))} artifacts")
            half = len(read_runs(store.storage)) // 2
            timed("gc", lambda: collect(store, half))
            timed("gc again", lambda: collect(store, half))


if __name__ == "__main__":
    main()
