"""The benchmark for a GPU where there is none: its dry mode runs all scripts, and it says what it did not measure."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = "benchmarks/gpu/run.sh"


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [SCRIPT, *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def test_the_dry_mode_runs_everything_and_says_that_it_measured_nothing(tiny_student):
    done = run("--dry", "--model", tiny_student)
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    assert lines[-1].startswith("NOT MEASURED: no GPU was used")
    found = json.loads(last)["measured"]
    assert {
        name: sorted(figures) for name, figures in found.items() if name != "peak"
    } == {
        "sft": ["doctor_says_gb", "peak_gb", "share_of_peak_flops", "tokens_per_second"],
        "grpo": [
            "beside", "completions_per_second", "doctor_says_gb", "peak_gb", "share_of_theirs",
            "their_completions_per_second", "tokens_per_second",
        ],
        "generation": [
            "beside", "engine", "share_of_peak_bandwidth", "share_of_peak_flops", "share_of_theirs",
            "tokens_per_second",
        ],
    }  # fmt: skip
    grpo = found["grpo"]
    assert grpo["tokens_per_second"] == pytest.approx(4 * grpo["completions_per_second"], rel=0.01)
    assert grpo["share_of_theirs"] == pytest.approx(
        grpo["completions_per_second"] / grpo["their_completions_per_second"], rel=0.01
    )
    told = {tuple(line.split()[:3]) for line in lines}
    assert {("sft", "tokens", "per"), ("grpo", "share", "of"), ("sft", "doctor", "says")} <= told


def test_without_a_gpu_or_a_folder_it_says_so_before_anything_is_installed(tiny_student, tmp_path):
    for wrong in (["--dry"], ["--model", tiny_student], ["--model", tmp_path / "none", "--dry"]):
        done = run(*wrong)
        assert (done.returncode, done.stdout) == (2, "")
        assert "benchmarks/gpu/run.sh --wheels FOLDER --model FOLDER" in done.stderr
    if shutil.which("nvidia-smi"):
        pytest.skip("there is a GPU here")
    done = run("--wheels", tmp_path, "--model", tiny_student)
    assert done.returncode == 2
    assert "there is no GPU here; --dry tries the scripts without one" in done.stderr
