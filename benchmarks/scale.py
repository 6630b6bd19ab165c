"""A million problems through the teacher, the lessons and the examples: time and peak memory.

    python benchmarks/scale.py FOLDER [SIZE ...]

A scripted teacher gives four right answers of 3 kB per problem. Each size runs in one process of its
own; the catalog is queried at the largest. A million problems need about 40 GB of disk.
"""

import hashlib
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cotpipe.data.rows import Failure, Problem, Row, write_rows
from cotpipe.engines import Generated, Model, Request, Sampling
from cotpipe.progress import Progress, Silent
from cotpipe.recipe.model import Recipe
from cotpipe.runs.catalog import query
from cotpipe.settings import Settings
from cotpipe.steps.curriculum import steps_of
from cotpipe.steps.runner import StepRunner
from cotpipe.store.artifacts import Store, open_store
from cotpipe.store.records import Record, Reference

SIZES = (10_000, 100_000, 1_000_000)
NUM_SAMPLES = 4
STEPS = [
    f"Step {number}: " + "the apples of this basket are counted one after the other, and " * 6
    for number in range(1, 9)
]
"""A rationale of 3 kB. Its words are not numbers: finding which step uses which number takes ten
times as long as all else, and no memory."""
_LETTERS = str.maketrans("0123456789", "ghijklmnop")


class Scripted:
    """A teacher whose answers are right, and of 3 kB."""

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, progress: Progress
    ) -> list[list[Generated]]:
        """See `Engine.generate`; the number in the question is the answer."""
        return [
            [self._answer(request, number) for number in range(sampling.num_samples)]
            for request in requests
        ]

    def _answer(self, request: Request, number: int) -> Generated:
        answer = request.prompt[-1]["content"].split(":")[0].removeprefix("Problem ")
        word = hashlib.sha256(f"{answer}/{number}".encode()).hexdigest().translate(_LETTERS)
        lines = [f"{step}{word[4 * place :]}." for place, step in enumerate(STEPS)]
        lines[-1] += f" That makes {answer}."
        return Generated("\n".join([*lines, f"Answer: {answer}"]), 700, truncated=False)


@contextmanager
def open_scripted(model: Model, settings: Settings) -> Iterator[Scripted]:
    """Open the scripted teacher."""
    yield Scripted()


def recipe() -> Recipe:
    """Four answers of the scripted teacher per problem, and the published curriculum."""
    teacher = {"engine": f"{Path(__file__).resolve()}:open_scripted", "model": "scripted"}
    return Recipe.model_validate({"teacher": teacher | {"num_samples": NUM_SAMPLES}})


def problems(size: int) -> Iterator[Problem]:
    """Questions of 250 characters, no two of them near each other."""
    rng = random.Random(1)
    words = [f"word{number}" for number in range(10_000)]
    for number in range(size):
        question = f"Problem {number}: {' '.join(rng.choices(words, k=25))}, how many?"
        yield Problem(f"problem-{number:07d}", question, str(number), [])


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


def run_steps(store: Store, size: int) -> None:
    """In a child process: run the steps; print the duration of each, and the peak memory so far."""
    reference = Reference(kind="problems", fingerprint=f"{size:032x}")
    put(store, reference, Problem, problems(size))
    inputs, chosen = {"problems": reference}, recipe()
    chosen.load_own_code()
    runner, steps = StepRunner(store, Settings(), Silent()), steps_of(chosen)
    for kind in ("rationales", "lessons", "stage1-examples"):
        started = time.perf_counter()
        outcome = runner.run(steps[kind], chosen, inputs)
        inputs[kind] = outcome.reference
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        result = {
            "problems": size,
            "step": kind,
            "kept": outcome.record.counts["kept"],
            "seconds": round(time.perf_counter() - started, 1),
            "peak_gb": round(peak, 2),
        }
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()


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
    root, *chosen = sys.argv[1:]
    store = open_store(Settings(store=str(Path(root, "store"))))
    if chosen[:1] == ["--size"]:
        run_steps(store, int(chosen[1]))
        return
    sizes = [int(size) for size in chosen] or list(SIZES)
    for size in sizes:
        subprocess.run([sys.executable, __file__, root, "--size", str(size)], check=True)
    ask_failures(store, max(sizes))


if __name__ == "__main__":
    main()
