"""Duration of masking, shuffling and writing 10 thousand, 100 thousand and a million rationales.

    python benchmarks/scale.py FOLDER

Runs the step of the pipeline in one process per size, and queries the catalog at the largest size.
"""

import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from cotpipe.data.rows import Failure, Lesson, Row, write_rows
from cotpipe.progress import Silent
from cotpipe.recipe.model import Recipe
from cotpipe.runs.catalog import query
from cotpipe.settings import Settings
from cotpipe.steps import examples
from cotpipe.steps.step import Work
from cotpipe.store.artifacts import Store, open_store
from cotpipe.store.records import Record, Reference
from cotpipe.store.training_states import TrainingStates

SIZES = (10_000, 100_000, 1_000_000)
EXAMPLES = Reference(kind="stage1-examples", fingerprint="0" * 32)


def lessons_of(size: int) -> Reference:
    """The artifact with this many lessons."""
    return Reference(kind="lessons", fingerprint=f"{size:032x}")


def lessons(size: int) -> Iterator[Lesson]:
    """Rationales of 2 to 8 steps of about 60 characters, as in GSM8K."""
    rng = random.Random(1)
    for number in range(size):
        steps = [
            f"After {rng.randint(2, 99)} more there are {rng.randint(2, 99)} + {rng.randint(2, 99)} = {number} apples."
            for _ in range(rng.randint(2, 8))
        ]
        graph = ([[] for _ in steps], [0] * len(steps), list(range(len(steps))))
        question = (
            f"Problem {number}: " + "Tom has some apples and is given some more of them. " * 3
        )
        yield Lesson(
            f"problem-{number:07d}",
            "stage1",
            number / size,
            question,
            str(number),
            steps,
            12 * len(steps),
            *graph,
        )


def no_shards(*_: object) -> list[Record]:
    """Not called, as nothing is generated here."""
    raise AssertionError


def put(store: Store, reference: Reference, row_type: type[Row], rows: Iterable[Row]) -> None:
    """Commit an artifact with one table, named after its kind.

    Args:
        store: The store.
        reference: The artifact.
        row_type: Type of the rows.
        rows: The rows of the table.
    """
    with store.draft(reference) as draft:
        write_rows(draft.path / f"{reference.kind}.parquet", row_type, rows)
        store.commit(
            draft,
            Record(
                kind=reference.kind, fingerprint=reference.fingerprint, attempt=draft.attempt, step_version=1,
                fields={}, inputs={}, counts={}, files=[], versions={}, made_at="2026-01-01T00:00:00+00:00",
                seconds=0.0,
            ),
        )  # fmt: skip


def write_examples(store: Store, size: int, output: Path) -> None:
    """In a child process: run the step, and print its duration and peak memory."""
    started = time.perf_counter()
    work = Work(
        recipe=Recipe(),
        settings=Settings(),
        store=store,
        inputs={"lessons": lessons_of(size)},
        output=output,
        training_states=TrainingStates(store.storage, EXAMPLES),
        progress=Silent(),
        run_all=no_shards,
    )
    counts = examples.step(Recipe().stages[0], "failures").run(work)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    result = {"rows": counts["kept"], "seconds": round(seconds, 2), "peak_gb": round(peak, 2)}
    sys.stdout.write(json.dumps(result) + "\n")


def ask_failures(store: Store, size: int) -> None:
    """Commit a million failures and count them per number of steps."""
    rng = random.Random(2)
    rows = (Failure(f"problem-{number:07d}", rng.randint(2, 8), 4, 0) for number in range(size))
    put(store, Reference(kind="failures", fingerprint="1" * 32), Failure, rows)
    started = time.perf_counter()
    found = query(
        store, "select num_steps, count(*) as failures from failures group by all order by all"
    ).fetchall()
    seconds = time.perf_counter() - started
    sys.stdout.write(
        json.dumps({"failures": sum(row[1] for row in found), "query_seconds": round(seconds, 3)})
        + "\n"
    )


def main() -> None:
    """Run all sizes in turn."""
    root = Path(sys.argv[1])
    store = open_store(Settings(store=str(root / "store")))
    if len(sys.argv) > 2:
        size = int(sys.argv[2])
        output = root / f"examples-{size}"
        output.mkdir(exist_ok=True)
        write_examples(store, size, output)
        return
    for size in SIZES:
        put(store, lessons_of(size), Lesson, lessons(size))
        subprocess.run([sys.executable, __file__, str(root), str(size)], check=True)
    ask_failures(store, SIZES[-1])


if __name__ == "__main__":
    main()
