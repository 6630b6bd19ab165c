"""The command starts at once: it loads what is slow to load only where it is used."""

import subprocess
import sys

SLOW = {
    "altair", "datasketch", "datasets", "jinja2", "pandas", "prefect", "reasoning_gym", "s3fs",
    "scipy", "torch", "transformers", "trl", "vl_convert", "vllm",
}  # fmt: skip
HELP = """
import sys
from flows.cli import main
sys.argv = ["cotpipe", "--help"]
try:
    main()
finally:
    print("loaded:", *(name for name in sys.modules if "." not in name))
"""


def test_help_loads_no_slow_library():
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True)
    text, _, loaded = done.stdout.rpartition("loaded: ")
    assert "Distil" in text
    assert "typer" in loaded.split()
    assert not SLOW & set(loaded.split())
