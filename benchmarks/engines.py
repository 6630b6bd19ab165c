"""Throughput of the engines `vllm` and `openai`, relative to vLLM's offline `generate`.

    python benchmarks/engines.py MODEL [--rounds 3] [--requests 256] [--gpu]

MODEL is a directory. Each round answers the same requests greedily with `LLM.generate`, with the
`vllm` engine on the same `LLM`, and with the `openai` engine and a vLLM server with the same settings.
Ratios are computed within a round.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import httpx

from cotpipe.engines.base import Engine, Model, Request, Sampling, tokens_of
from cotpipe.progress import Silent
from cotpipe.rationale.prompts import question_prompt
from cotpipe.settings import Settings

_NEW_TOKENS = 96
_CONTEXT = 1024
_PORT = 8765


def requests(count: int) -> list[Request]:
    """Word problems of varying length."""
    rng = random.Random(1)
    found = []
    for number in range(count):
        parts = [
            f"Then {rng.randint(2, 99)} more come and {rng.randint(2, 9)} go."
            for _ in range(rng.randint(1, 6))
        ]
        question = f"There are {rng.randint(2, 99)} birds. {' '.join(parts)} How many are there?"
        found.append(Request(f"problem-{number}", question_prompt(question)))
    return found


@contextmanager
def server(model: str, gpu: bool) -> Iterator[str]:
    """Run a vLLM server with the same settings as `LLM`; yields its address."""
    on_cpu = [
        "--enforce-eager", "--no-enable-chunked-prefill", "--dtype", "bfloat16", "--max-num-seqs", "256",
        "--max-num-batched-tokens", "4096",
    ]  # fmt: skip
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--port", str(_PORT),
        "--max-model-len", str(_CONTEXT), "--disable-log-stats", "--disable-uvicorn-access-log",
        *(["--gpu-memory-utilization", "0.4"] if gpu else on_cpu),
    ]  # fmt: skip
    address = f"http://127.0.0.1:{_PORT}"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait(address, process)
            yield address
        finally:
            process.terminate()


def measure(model: str, asked: Sequence[Request], rounds: int, gpu: bool) -> dict[str, list[float]]:
    """Tokens per second in every round, by engine.

    Args:
        model: Directory of the model.
        asked: The requests of a round.
        rounds: Number of rounds.
        gpu: Whether the server runs on a GPU.
    """
    from cotpipe.engines.openai_engine import open_servers
    from cotpipe.engines.vllm_engine import VllmEngine, _parameters

    sampling = Sampling(1, 0.0, _NEW_TOKENS, 0)
    found: dict[str, list[float]] = {"offline": [], "vllm": [], "openai": []}
    with (
        server(model, gpu) as address,
        open_servers(Model(model), Settings(servers=(f"{address}/v1",))) as servers,
    ):
        engine = VllmEngine(Model(model), Settings(context_length=_CONTEXT, gpu_memory_share=0.4))
        llm, tokenizer = engine._llm, engine._tokenizer
        prompts = [
            {"prompt_token_ids": tokens_of(one, sampling, Model(model), tokenizer, _CONTEXT)}
            for one in asked
        ]

        def offline() -> int:
            outputs = llm.generate(prompts, _parameters(sampling, 0), use_tqdm=False)
            return sum(len(output.outputs[0].token_ids) for output in outputs)

        def ours(one: Engine) -> int:
            return sum(row[0].num_tokens for row in one.generate(asked, sampling, Silent()))

        for one in (engine, servers):
            one.generate(asked[:8], sampling, Silent())
        for _ in range(rounds):
            for name, run in (
                ("offline", offline),
                ("vllm", partial(ours, engine)),
                ("openai", partial(ours, servers)),
            ):
                llm.reset_prefix_cache()
                httpx.post(f"{address}/reset_prefix_cache").raise_for_status()
                found[name].append(_speed(run))
                sys.stderr.write(f"{name} {found[name][-1]:.1f} tokens/s\n")
        engine.close()
    return found


def _speed(run: Callable[[], int]) -> float:
    started = time.perf_counter()
    return run() / (time.perf_counter() - started)


def _wait(address: str, server: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert server.poll() is None, "the server has exited"
        try:
            if httpx.get(f"{address}/health").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    raise SystemExit("the server did not start within 300 s")


def main() -> None:
    """Measure, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--gpu", action="store_true")
    arguments = parser.parse_args()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ["VLLM_SERVER_DEV_MODE"] = "1"  # for reset_prefix_cache
    asked = requests(arguments.requests)
    found = measure(arguments.model, asked, arguments.rounds, arguments.gpu)
    ratios = {
        name: round(
            statistics.median(
                mine / theirs for mine, theirs in zip(found[name], found["offline"], strict=True)
            ),
            3,
        )
        for name in ("vllm", "openai")
    }
    rounded = {name: [round(speed, 1) for speed in speeds] for name, speeds in found.items()}
    sys.stdout.write(json.dumps({"tokens_per_second": rounded, "of_offline": ratios}) + "\n")


if __name__ == "__main__":
    main()
