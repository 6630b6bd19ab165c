"""Training and generation beside TRL and transformers on this machine: `make bench`.

    python benchmarks/bench.py [--only sft|grpo|generation] [--name NAME]

Runs sft.py, grpo.py and generation.py with the demo's student, one after the other, and writes what
they find to benchmarks/results/NAME.json, with the machine and the versions; then brings the table
and the picture in docs/performance.md up to date. Takes about a quarter of an hour of two cores with
nothing else to do.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import altair as alt
import psutil
import torch

from cotpipe.hardware.devices import fast_dtype, processor_name
from cotpipe.progress import Silent
from cotpipe.recipe.files import load_recipe
from cotpipe.report.drawing import save_png
from cotpipe.settings import Settings
from cotpipe.steps.curriculum import steps_of
from cotpipe.steps.runner import StepRunner
from cotpipe.store.artifacts import open_store

_FOLDER = Path(__file__).parent
_RESULTS = _FOLDER / "results"
_DOCS = _FOLDER.parent / "docs"
_PAGE = _DOCS / "performance.md"
_SCRIPTS = {"sft": ["--rounds", "2"], "grpo": ["--rounds", "2", "--steps", "1"], "generation": []}
_TITLES = {
    "sft": "SFT: tokens per second, beside SFTTrainer",
    "grpo": "GRPO: completions per second, beside GRPOTrainer",
    "generation": "evaluation: tokens per second, beside generate",
}
_RATIO = {"sft": "ratio_seconds", "grpo": "ratio_seconds", "generation": "ratio"}
_BEGIN, _END = "<!-- begin results: written by benchmarks/bench.py -->", "<!-- end results -->"


def demo_student(folder: Path) -> Path:
    """The demo's student as a Hugging Face directory."""
    settings = Settings(store=str(folder))
    store, recipe = open_store(settings), load_recipe("demo")
    outcome = StepRunner(store, settings, Silent()).run(steps_of(recipe)["student"], recipe, {})
    return store.path(store.require(outcome.reference), "model")


def machine() -> dict[str, Any]:
    """What the figures depend on: processor or GPU, threads, number format, versions."""
    packages = ("torch", "transformers", "trl", "accelerate", "cotpipe")
    return {
        "processor": processor_name(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "number_format": str(fast_dtype()).removeprefix("torch."),
        "versions": {name: version(name) for name in packages},
        "load_before": round(os.getloadavg()[0], 1),
    }


def measured(name: str, student: Path, options: Sequence[str]) -> dict[str, Any]:
    """What a script prints at its end, and the minutes it took."""
    started = time.perf_counter()
    command = [sys.executable, str(_FOLDER / f"{name}.py"), str(student), *options]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    shown = ["python", f"benchmarks/{name}.py", "STUDENT", *options]
    return {
        "command": " ".join(shown),
        "minutes": round((time.perf_counter() - started) / 60, 1),
    } | found


def write_page() -> None:
    """Bring docs/performance.md and its picture up to date with all files of results."""
    results = {path.stem: json.loads(path.read_text()) for path in sorted(_RESULTS.glob("*.json"))}
    lines = ["| machine | number format | what | times as fast | memory, theirs and ours |"]
    lines.append("| --- | --- | --- | --- | --- |")
    bars = []
    for one in results.values():
        where = one["machine"]
        named = f"{where['gpu'] or where['processor']}, {where['threads']} threads"
        for script, found in one["measured"].items():
            memory = (
                f"{max(found['trl_peak_gb'])} and {max(found['cotpipe_peak_gb'])} GB"
                if "trl_peak_gb" in found
                else ""
            )
            ratio = found[_RATIO[script]]
            lines.append(
                f"| {named} | {where['number_format']} | {_TITLES[script]} (`{found['command']}`) "
                f"| {ratio} | {memory} |"
            )
            bars.append({"what": _TITLES[script], "times as fast": ratio, "machine": named})
    text = _PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    table = "\n".join(lines)
    _PAGE.write_text(f"{before}{_BEGIN}\n\n{table}\n\n{_END}{after}", encoding="utf-8")
    _draw(bars)


def _draw(bars: list[dict[str, Any]]) -> None:
    base = alt.Chart(alt.Data(values=bars)).encode(
        x=alt.X("times as fast:Q", title="times as fast with the same weights and rows"),
        y=alt.Y("what:N", title=None, sort=list(_TITLES.values()), axis=alt.Axis(labelLimit=400)),
        yOffset="machine:N",
    )
    marks = base.mark_bar().encode(color=alt.Color("machine:N", title=None))
    even = alt.Chart(alt.Data(values=[{"x": 1}])).mark_rule(strokeDash=[4, 4]).encode(x="x:Q")
    save_png(_DOCS / "performance.png", (marks + even).properties(width=420))


def main() -> None:
    """Measure everything, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=list(_SCRIPTS), help="default: all")
    parser.add_argument("--name", help="of the file of results; default: from the processor or GPU")
    parser.add_argument("--draw", action="store_true", help="only bring the page up to date")
    arguments = parser.parse_args()
    if not arguments.draw:
        _measure(arguments.only or list(_SCRIPTS), arguments.name)
    write_page()


def _measure(scripts: list[str], name: str | None) -> None:
    """Run scripts; what each has found is written at once, beside what the file has of others."""
    where = machine()
    given = f"{where['gpu'] or where['processor']}-{where['threads']}-{where['number_format']}"
    file = _RESULTS / f"{name or re.sub(r'[^a-z0-9]+', '-', given.lower()).strip('-')}.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"measured": {}}
    found |= {"day": datetime.now(UTC).date().isoformat(), "machine": where}
    _RESULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        student = demo_student(Path(folder))
        for script in scripts:
            found["measured"][script] = measured(script, student, _SCRIPTS[script])
            file.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
