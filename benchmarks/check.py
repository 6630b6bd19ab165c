"""Cost of reusing an artifact on a local disk: the first time on a machine, and afterwards.

    python benchmarks/check.py EMPTY_FOLDER [--gb 2] [--files 4]

Writes an artifact of random bytes in several files, drops them from the page cache, and checks it
twice, each time with a newly opened store.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from cotpipe.settings import Settings
from cotpipe.store.artifacts import open_store
from cotpipe.store.records import Record, Reference

REFERENCE = Reference(kind="stage1", fingerprint="0" * 32)
_BLOCK = 2**24


def fill(folder: Path, num_bytes: int, num_files: int) -> None:
    """Write files of equal size with random, incompressible bytes."""
    size = num_bytes // num_files
    for number in range(num_files):
        with (folder / f"model-{number}.safetensors").open("wb") as file:
            for start in range(0, size, _BLOCK):
                file.write(os.urandom(min(_BLOCK, size - start)))


def forget(folder: Path) -> None:
    """Drop the files from the page cache, so that they are read from disk."""
    for path in folder.rglob("*.safetensors"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def check(settings: Settings) -> tuple[float, float]:
    """Wall seconds and CPU seconds to check the artifact."""
    started, computed = time.perf_counter(), time.process_time()
    assert open_store(settings).check(REFERENCE), "it is whole"
    return time.perf_counter() - started, time.process_time() - computed


def main() -> None:
    """Write the artifact and check it twice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gb", type=float, default=2.0)
    parser.add_argument("--files", type=int, default=4)
    arguments = parser.parse_args()
    settings = Settings(store=str(arguments.folder / "store"), cache=arguments.folder / "cache")
    store = open_store(settings)
    with store.draft(REFERENCE) as draft:
        fill(draft.path, int(arguments.gb * 1e9), arguments.files)
        record = store.commit(
            draft,
            Record(
                kind=REFERENCE.kind, fingerprint=REFERENCE.fingerprint, attempt=draft.attempt, step_version=1,
                fields={}, inputs={}, counts={}, files=[], versions={}, made_at="2026-01-01T00:00:00+00:00",
                seconds=0.0,
            ),
        )  # fmt: skip
    forget(arguments.folder)
    size = sum(file.size for file in record.files) / 1e9
    first, computed = check(settings)
    second, _ = check(settings)
    result = {
        "gb": round(size, 2), "files": arguments.files, "first_seconds": round(first, 2),
        "gb_per_second": round(size / first, 2), "core_seconds_per_gb": round(computed / size, 2),
        "first_seconds_of_50_gb": round(50 * first / size), "second_seconds": round(second, 4),
    }  # fmt: skip
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
