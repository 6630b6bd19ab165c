"""How busy the engines keep vLLM: tokens per second of `vllm` and `openai` against vLLM's own offline `generate`.

    python benchmarks/engines.py MODEL [--rounds 3] [--requests 256] [--gpu]

MODEL is a folder. The same requests, greedy, are answered by `LLM.generate` and by the `vllm` engine on the same
vLLM, in turns, then by the `openai` engine and a server of vLLM's own. The first answers of each warm it up.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

import httpx

from cotpipe.engines.base import Model, Request, Sampling, tokens_of
from cotpipe.prompts import question_prompt
from cotpipe.settings import Settings

_NEW_TOKENS = 96
_CONTEXT = 1024
_PORT = 8765


def requests(count: int) -> list[Request]:
    """Word problems of differing length."""
    rng = random.Random(1)
    found = []
    for number in range(count):
        parts = [f"Then {rng.randint(2, 99)} more come and {rng.randint(2, 9)} go." for _ in range(rng.randint(1, 6))]
        question = f"There are {rng.randint(2, 99)} birds. {' '.join(parts)} How many are there?"
        found.append(Request(f"problem-{number}", question_prompt(question)))
    return found


def in_process(model: str, asked: Sequence[Request], rounds: int) -> dict[str, list[float]]:
    """Tokens per second of `LLM.generate` and of our engine around the same vLLM, in turns."""
    from cotpipe.engines.vllm_engine import VllmEngine, _parameters

    engine = VllmEngine(Model(model), Settings(context_length=_CONTEXT))
    llm, tokenizer, sampling = engine._llm, engine._tokenizer, Sampling(1, 0.0, _NEW_TOKENS, 0)
    prompts = [{"prompt_token_ids": tokens_of(one, sampling, Model(model), tokenizer, _CONTEXT)} for one in asked]
    found: dict[str, list[float]] = {"offline": [], "vllm": []}

    def offline() -> int:
        outputs = llm.generate(prompts, _parameters(sampling, 0), use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    def ours() -> int:
        return sum(row[0].num_tokens for row in engine.generate(asked, sampling, lambda done, total: None))

    engine.generate(asked[:8], sampling, lambda done, total: None)
    for _ in range(rounds):
        for name, run in (("offline", offline), ("vllm", ours)):
            llm.reset_prefix_cache()
            found[name].append(_speed(run))
    engine.close()
    return found


def served(model: str, asked: Sequence[Request], rounds: int, gpu: bool) -> list[float]:
    """Tokens per second of the `openai` engine."""
    from cotpipe.engines.openai_engine import open_servers

    on_cpu = [] if gpu else ["--enforce-eager", "--no-enable-chunked-prefill", "--dtype", "bfloat16"]
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--port", str(_PORT),
        "--max-model-len", str(_CONTEXT), "--disable-log-stats", "--disable-uvicorn-access-log", *on_cpu,
    ]  # fmt: skip
    address = f"http://127.0.0.1:{_PORT}"
    settings = Settings(servers=(f"{address}/v1",))
    sampling, found = Sampling(1, 0.0, _NEW_TOKENS, 0), []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _wait(address, server)
            with open_servers(Model(model), settings) as engine:
                engine.generate(asked[:8], sampling, lambda done, total: None)
                for _ in range(rounds):
                    httpx.post(f"{address}/reset_prefix_cache")
                    found.append(
                        _speed(
                            lambda: sum(
                                row[0].num_tokens for row in engine.generate(asked, sampling, lambda done, total: None)
                            )
                        )
                    )
        finally:
            server.terminate()
    return found


def _speed(run) -> float:  # noqa: ANN001
    started = time.perf_counter()
    return run() / (time.perf_counter() - started)


def _wait(address: str, server: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert server.poll() is None, "the server has ended"
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
    found = in_process(arguments.model, asked, arguments.rounds)
    found["openai"] = served(arguments.model, asked, arguments.rounds, arguments.gpu)
    medians = {name: statistics.median(speeds) for name, speeds in found.items()}
    ratios = {name: round(medians[name] / medians["offline"], 3) for name in ("vllm", "openai")}
    rounded = {name: [round(speed, 1) for speed in speeds] for name, speeds in found.items()}
    sys.stdout.write(json.dumps({"tokens_per_second": rounded, "of_offline": ratios}) + "\n")


if __name__ == "__main__":
    main()
