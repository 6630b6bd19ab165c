"""Duration of a run that reuses every step, and whether it imports the heavy libraries.

    python benchmarks/reuse.py --recipe demo --store STORE [--set KEY=VALUE ...]

STORE contains a finished run of the same recipe. Prints the seconds of three runs, and of an empty
Prefect flow.
"""

import json
import os
import subprocess
import sys
import time

PROBE = """
import sys
from flows.cli.main import app
try:
    app(sys.argv[1:])
finally:
    print("loaded:", sorted({"torch", "trl", "transformers"} & sys.modules.keys()), file=sys.stderr)
"""
EMPTY_FLOW = "from prefect import flow\n@flow\ndef nothing() -> None: ...\nnothing()"


def timed(command: list[str]) -> tuple[float, str]:
    """Wall seconds of a process, and its standard error."""
    quiet = {"PREFECT_LOGGING_LEVEL": "CRITICAL", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    started = time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | quiet
    )
    return time.perf_counter() - started, done.stderr


def main() -> None:
    """Time three runs after a warm-up run."""
    command = [sys.executable, "-c", PROBE, "run", *sys.argv[1:]]
    _, told = timed(command)
    seconds = [round(timed(command)[0], ndigits=1) for _ in range(3)]
    result: dict[str, object] = {"seconds": seconds, "loaded": told.strip().splitlines()[-1]}
    result["prefect_alone_seconds"] = round(timed([sys.executable, "-c", EMPTY_FLOW])[0], 1)
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
