"""Speed and memory of SFT, GRPO and generation on a GPU, with a model: see run.sh.

    python -m benchmarks.gpu.measure MODEL [--dry]

Shares are of what the GPU itself reaches here: in a large matrix product, and in copying memory.
Training counts 6 operations per weight and token, generation 2 (of new tokens alone). Weights are
read once per token of a batch: that is all that the share of the bandwidth counts.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from benchmarks.bench import machine, measured
from benchmarks.grpo import GROUP, PROMPT_TOKENS
from cotpipe.engines.vllm_engine import has_vllm
from cotpipe.hardware.devices import fast_dtype, training_attention
from cotpipe.recipe.trainers import Grpo, Sft
from cotpipe.training.memory import ModelShape, needs_of, shape_of


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    matrix: int  # rows and columns of the matrices whose product is timed
    copied: int  # numbers of a tensor that is copied
    steps: int  # optimizer steps
    batch: int  # rows of an SFT step
    prompts: int  # of a GRPO step
    new_tokens: int
    requests: int  # of a generation


_FULL = Size(8192, 2**30, steps=20, batch=32, prompts=64, new_tokens=256, requests=1024)
_DRY = Size(256, 2**16, steps=1, batch=2, prompts=2, new_tokens=4, requests=2)
_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
_AT_ONCE = 256  # requests that vLLM answers together by default


@dataclass(frozen=True)
class Peak:
    """What the device reaches."""

    flops: float  # multiplications and additions per second, in the fast dtype
    bandwidth: float  # bytes read and written per second


def peak(size: Size) -> Peak:
    """The best of several rounds."""
    reached = Peak(
        flops=2 * size.matrix**3 / _seconds_of_product(size.matrix),
        bandwidth=2 * 2 * size.copied / _seconds_of_copy(size.copied),
    )
    torch.cuda.empty_cache()  # the memory is for the processes that are measured
    return reached


def _seconds_of_product(rows: int) -> float:
    matrix = torch.randn(rows, rows, device=_DEVICE).to(fast_dtype())
    return _best(lambda: matrix @ matrix)


def _seconds_of_copy(count: int) -> float:
    """Of numbers of two bytes, each read and written."""
    source = torch.zeros(count, dtype=torch.bfloat16, device=_DEVICE)
    target = torch.empty_like(source)
    return _best(lambda: target.copy_(source))


def _best(work: Callable[[], Any]) -> float:
    """Seconds of the fastest of ten."""
    times = []
    for _ in range(11):  # the first one warms up
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:])


def sft(model: Path, shape: ModelShape, size: Size, reached: Peak) -> dict[str, Any]:
    """Stage 1's trainer."""
    options = ["--steps", str(size.steps), "--batch", str(size.batch), "--only", "cotpipe"]
    found = measured("sft", model, options)
    speed = found["tokens_per_step"] / found["seconds"]
    trainer = Sft(
        batch_size=size.batch, micro_batch=size.batch, max_length=int(found["longest_row"])
    )
    return {
        "tokens_per_second": round(speed, 1),
        "share_of_peak_flops": round(6 * shape.num_weights * speed / reached.flops, 3),
        **_memory(found, trainer, shape),
    }


def grpo(model: Path, shape: ModelShape, size: Size, by_vllm: bool) -> dict[str, Any]:
    """Our GRPO, and TRL's on the same prompts, with completions of vLLM's where it is installed."""
    wanted = {"--steps": size.steps, "--prompts": size.prompts, "--new-tokens": size.new_tokens}
    same = [part for name, count in wanted.items() for part in (name, str(count))]
    theirs = [*same, "--only", "trl", *(["--vllm"] if by_vllm else [])]
    found = {
        "cotpipe": measured("grpo", model, [*same, "--only", "cotpipe"]),
        "trl": measured("grpo", model, theirs),
    }
    per_second = {name: size.prompts * GROUP / one["seconds"] for name, one in found.items()}
    trainer = Grpo(
        group_size=GROUP, prompts_per_step=size.prompts, micro_batch=GROUP,
        max_new_tokens=size.new_tokens, max_prompt_length=PROMPT_TOKENS,
    )  # fmt: skip
    return {
        "completions_per_second": round(per_second["cotpipe"], 2),
        "tokens_per_second": round(per_second["cotpipe"] * size.new_tokens, 1),
        "beside": f"TRL with {'vLLM in its process' if by_vllm else 'generate'}",
        "their_completions_per_second": round(per_second["trl"], 2),
        "share_of_theirs": round(per_second["cotpipe"] / per_second["trl"], 3),
        **_memory(found["cotpipe"], trainer, shape),
    }


def generation(
    model: Path, shape: ModelShape, size: Size, reached: Peak, by_vllm: bool
) -> dict[str, Any]:
    """The `vllm` engine beside vLLM itself, or the `transformers` engine beside `generate`."""
    if by_vllm:
        found = measured("engines", model, ["--requests", str(size.requests), "--gpu"])
        speeds, share = found["tokens_per_second"]["vllm"], found["of_offline"]["vllm"]
    else:
        found = measured("generation", model, ["--problems", str(size.requests), "--rounds", "1"])
        speeds, share = found["tokens_per_second"]["engine"], found["ratio"]
    speed = max(speeds)
    read = shape.num_weights * fast_dtype().itemsize * speed / min(_AT_ONCE, size.requests)
    return {
        "engine": "vllm" if by_vllm else "transformers",
        "tokens_per_second": speed,
        "beside": "vLLM's own generate" if by_vllm else "transformers' generate",
        "share_of_theirs": share,
        "share_of_peak_flops": round(2 * shape.num_weights * speed / reached.flops, 3),
        "share_of_peak_bandwidth": round(read / reached.bandwidth, 3),
    }


def _memory(found: dict[str, Any], trainer: Sft | Grpo, shape: ModelShape) -> dict[str, float]:
    needs = needs_of(trainer, shape, training_attention() == "eager", fast_dtype().itemsize)
    return {
        "peak_gb": round(found["peak_gb"], 2),
        "doctor_says_gb": round(sum(need.gigabytes for need in needs), 2),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a line for each figure; all of them as JSON at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--dry", action="store_true", help="in miniature: to see that it runs")
    chosen = parser.parse_args(arguments)
    size, by_vllm = (_DRY, False) if chosen.dry else (_FULL, has_vllm())
    shape, reached = shape_of(AutoConfig.from_pretrained(chosen.model)), peak(size)
    found: dict[str, dict[str, Any]] = {
        "peak": {"flops": reached.flops, "bandwidth": reached.bandwidth},
        "sft": sft(chosen.model, shape, size, reached),
        "grpo": grpo(chosen.model, shape, size, by_vllm),
        "generation": generation(chosen.model, shape, size, reached, by_vllm),
    }
    for what, figures in found.items():
        for name, value in figures.items():
            sys.stdout.write(f"{what:>10} {name.replace('_', ' '):<30} {value}\n")
    if chosen.dry or not torch.cuda.is_available():
        sys.stdout.write(
            "NOT MEASURED: no GPU was used; these figures only show that the scripts run\n"
        )
    sys.stdout.write(
        json.dumps({"dry": chosen.dry, "machine": machine(), "measured": found}) + "\n"
    )


if __name__ == "__main__":
    main()
