"""The `vllm` engine: a checkpoint in vLLM, inside this process, with prefix caching and LoRA adapters."""

import gc
import json
import os
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

from cotpipe.engines.base import Generated, Model, Report, Request, Sampling, as_generated, tokens_of
from cotpipe.errors import RunError, UserError
from cotpipe.hardware import fast_dtype
from cotpipe.settings import Settings


class VllmEngine:
    """One vLLM engine for as long as it lives; `close` frees the GPU.

    Every sample has a seed of its own, so what else is in a batch changes a sample by rounding at most. vLLM takes
    several GPUs for one copy of a model here (`COTPIPE_TENSOR_PARALLEL`); several copies take its server
    (`vllm serve --data-parallel-size`) and the `openai` engine.
    """

    def __init__(self, model: Model, settings: Settings) -> None:
        self._source = model
        self._turn = threading.Lock()  # shards take turns
        self._adapter = LoRARequest("adapter", 1, model.adapter) if model.adapter else None
        lora = {"enable_lora": True, "max_lora_rank": _rank(model.adapter)} if model.adapter else {}
        try:
            self._llm = LLM(
                model=model.name,
                revision=model.revision,
                dtype=str(fast_dtype()).removeprefix("torch."),
                tensor_parallel_size=settings.tensor_parallel,
                gpu_memory_utilization=settings.gpu_memory_share,
                max_model_len=settings.context_length,
                enable_prefix_caching=True,
                disable_log_stats=True,
                **lora,
                **_options_of_cpu(),
            )
        except (OSError, ValueError) as error:
            raise UserError(f"vLLM cannot open {model.name!r}: {' '.join(str(error).split())[:500]}") from error
        except RuntimeError as error:  # what its own process died of stands on standard error
            raise RunError(
                f"vLLM could not start with {model.name!r} ({' '.join(str(error).split())[:200]}); if memory is short, "
                "set COTPIPE_CONTEXT_LENGTH, COTPIPE_GPU_MEMORY_SHARE or COTPIPE_TENSOR_PARALLEL"
            ) from error
        self._tokenizer: Any = self._llm.get_tokenizer()
        self._context: int = self._llm.llm_engine.model_config.max_model_len

    def generate(self, requests: Sequence[Request], sampling: Sampling, report: Report) -> list[list[Generated]]:
        """See `Engine.generate`."""
        prompts, parameters = [], []
        for request in requests:
            tokens = tokens_of(request, sampling, self._source, self._tokenizer, self._context)
            for number in range(sampling.num_samples):
                prompts.append({"prompt_token_ids": tokens})
                parameters.append(_parameters(sampling, sampling.seed_of(request.problem_id, number)))
        if not prompts:
            return []
        with self._turn:
            outputs = self._llm.generate(
                prompts, parameters, lora_request=self._adapter, use_tqdm=partial(_Bar, told=report)
            )
        answers = [_read(output.outputs[0]) for output in outputs]
        size = sampling.num_samples
        return [answers[start : start + size] for start in range(0, len(answers), size)]

    def close(self) -> None:
        """End vLLM's own processes and give the memory of the GPU back."""
        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        gc.collect()


class _Bar(tqdm):
    """vLLM's progress bar, which draws nothing but reports how many answers are done."""

    def __init__(self, *arguments: Any, told: Report, **options: Any) -> None:
        self._told = told
        super().__init__(*arguments, **options)

    def display(self, *_: Any, **__: Any) -> None:
        """Called as often as a bar would be drawn; vLLM has a bar for reading the prompts, too."""
        if self.desc.startswith("Processed"):
            self._told(self.n, self.total)

    def clear(self, *_: Any, **__: Any) -> None:
        """There is nothing to clear."""


def _parameters(sampling: Sampling, seed: int) -> SamplingParams:
    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p if sampling.temperature else 1.0,
        max_tokens=sampling.max_new_tokens,
        seed=seed if sampling.temperature else None,
        stop=list(sampling.stop),
    )


def _read(output: Any) -> Generated:
    return as_generated(output.text, len(output.token_ids), truncated=output.finish_reason == "length")


def _rank(adapter: str) -> int:
    """The rank of an adapter, rounded up to one that vLLM knows."""
    path = Path(adapter, "adapter_config.json")
    if not path.is_file():
        raise UserError(f"{adapter} is no LoRA adapter: there is no {path.name} in it")
    rank: int = json.loads(path.read_text(encoding="utf-8"))["r"]
    return max(8, 1 << (rank - 1).bit_length())


def _options_of_cpu() -> dict[str, Any]:
    """What vLLM needs on a CPU; nothing on a GPU."""
    if torch.cuda.is_available():
        return {}
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GB
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    # A seeded sample of a prompt that is read in chunks ends vLLM 0.31 on a CPU: "CPU Generator does not use offset".
    return {"enforce_eager": True, "enable_chunked_prefill": False}
