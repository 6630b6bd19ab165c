"""How long masking, shuffling and writing takes for 10 thousand, 100 thousand and a million rationales.

    python benchmarks/scale.py FOLDER

Runs the pipeline's own step in a process of its own per size, and asks the catalog a question over the largest.
"""

import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from cotpipe.catalog import query
from cotpipe.checkpoints import Checkpoints
from cotpipe.config import Recipe
from cotpipe.records import Record, Reference
from cotpipe.rows import Failure, Lesson, write_rows
from cotpipe.settings import Settings
from cotpipe.steps.step import Silent, Work
from cotpipe.steps.train import write_stage1_examples
from cotpipe.store import open_store

SIZES = (10_000, 100_000, 1_000_000)


def lessons(size: int) -> Iterator[Lesson]:
    """Rationales of 2 to 8 steps of about 60 characters, as GSM8K's."""
    rng = random.Random(1)
    for number in range(size):
        steps = [
            f"After {rng.randint(2, 99)} more there are {rng.randint(2, 99)} + {rng.randint(2, 99)} = {number} apples."
            for _ in range(rng.randint(2, 8))
        ]
        graph = ([[] for _ in steps], [0] * len(steps), list(range(len(steps))))
        question = f"Problem {number}: " + "Tom has some apples and is given some more of them. " * 3
        yield Lesson(
            f"problem-{number:07d}", "stage1", number / size, question, str(number), steps, 12 * len(steps), *graph
        )


def no_shards(*_: object) -> list[Path]:
    """Nothing is generated here."""
    raise AssertionError


def write_examples(folder: Path) -> None:
    """Child process: the step alone, its time and its peak memory."""
    store = open_store(Settings(store=str(folder / "unused")))
    reference = Reference(kind="stage1-examples", fingerprint="0" * 32)
    output = folder / "output"
    output.mkdir(exist_ok=True)
    started = time.perf_counter()
    checkpoints = Checkpoints(store.storage, reference)
    work = Work(
        Recipe(), Settings(), lambda kind, name: folder / name, output, checkpoints, Silent(), inputs={}, make=no_shards
    )
    counts = write_stage1_examples(work)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    result = {"rows": counts["kept"], "seconds": round(seconds, 2), "peak_gb": round(peak, 2)}
    sys.stdout.write(json.dumps(result) + "\n")


def ask_failures(folder: Path, size: int) -> None:
    """Commit a million failures and count them per number of steps."""
    store = open_store(Settings(store=str(folder / "store")))
    reference = Reference(kind="failures", fingerprint="1" * 32)
    rng = random.Random(2)
    with store.draft(reference) as draft:
        rows = (Failure(f"problem-{number:07d}", rng.randint(2, 8), 4, 0) for number in range(size))
        write_rows(draft.path / "failures.parquet", Failure, rows)
        store.commit(
            draft,
            Record(
                kind="failures", fingerprint=reference.fingerprint, attempt=draft.attempt, step_version=1, fields={},
                inputs={}, counts={}, files=[], versions={}, made_at="2026-01-01T00:00:00+00:00", seconds=0.0,
            ),
        )  # fmt: skip
    started = time.perf_counter()
    found = query(store, "select num_steps, count(*) as failures from failures group by all order by all").fetchall()
    seconds = time.perf_counter() - started
    sys.stdout.write(json.dumps({"failures": sum(row[1] for row in found), "query_seconds": round(seconds, 3)}) + "\n")


def main() -> None:
    """All sizes, one after the other."""
    root = Path(sys.argv[1])
    if len(sys.argv) > 2:
        write_examples(root)
        return
    for size in SIZES:
        folder = root / str(size)
        folder.mkdir(parents=True, exist_ok=True)
        write_rows(folder / "lessons.parquet", Lesson, lessons(size))
        subprocess.run([sys.executable, __file__, str(folder), "child"], check=True)
    ask_failures(root, SIZES[-1])


if __name__ == "__main__":
    main()
