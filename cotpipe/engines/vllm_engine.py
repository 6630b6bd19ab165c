"""The `vllm` engine: vLLM's offline `LLM`, with prefix caching and LoRA adapters."""

import gc
import importlib.util
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cotpipe.engines.base import (
    Generated,
    Model,
    PromptTooLongError,
    Request,
    Sampling,
    as_generated,
    engines,
    refused,
    tokens_of,
)
from cotpipe.errors import RunError, UserError
from cotpipe.progress import Progress
from cotpipe.settings import Settings

if TYPE_CHECKING:
    from vllm import SamplingParams


class VllmEngine:
    """Holds one vLLM engine for its lifetime; `close` frees the GPU.

    Every sample has its own seed, so samples depend on the rest of the batch only through rounding.
    One model replica can span several GPUs (`COTPIPE_TENSOR_PARALLEL`); for several replicas, use
    vLLM's server (`vllm serve --data-parallel-size`) with the `openai` engine.
    """

    def __init__(self, model: Model, settings: Settings) -> None:
        from vllm import LLM
        from vllm.lora.request import LoRARequest

        from cotpipe.hardware.devices import fast_dtype, require_devices

        require_devices(settings.tensor_parallel, "COTPIPE_TENSOR_PARALLEL")
        self._source = model
        self._turn = threading.Lock()  # shards take turns
        self._adapter = LoRARequest("adapter", 1, model.adapter) if model.adapter else None
        lora = {"enable_lora": True, "max_lora_rank": _rank(model.adapter)} if model.adapter else {}
        try:
            self._llm = LLM(
                model=model.name,
                revision=model.revision,
                dtype=str(fast_dtype(settings.precision)).removeprefix("torch."),
                tensor_parallel_size=settings.tensor_parallel,
                gpu_memory_utilization=settings.gpu_memory_share,
                max_model_len=settings.context_length,
                enable_prefix_caching=True,
                disable_log_stats=True,
                **lora,
                **_options_of_cpu(),
            )
        except (OSError, ValueError) as error:
            raise UserError(
                f"vLLM cannot open {model.name!r}: {' '.join(str(error).split())[:500]}"
            ) from error
        except RuntimeError as error:  # vLLM's child process prints the cause to standard error
            raise RunError(
                f"vLLM could not start with {model.name!r} ({' '.join(str(error).split())[:200]}); "
                "if memory is short, set COTPIPE_CONTEXT_LENGTH, COTPIPE_GPU_MEMORY_SHARE or "
                "COTPIPE_TENSOR_PARALLEL"
            ) from error
        self._tokenizer: Any = self._llm.get_tokenizer()
        self._context: int = self._llm.llm_engine.model_config.max_model_len

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, progress: Progress
    ) -> list[list[Generated]]:
        """See `Engine.generate`."""
        prompts: list[dict[str, list[int]]] = []
        parameters: list[SamplingParams] = []
        too_long: dict[int, list[Generated]] = {}
        for index, request in enumerate(requests):
            try:
                tokens = tokens_of(request, sampling, self._source, self._tokenizer, self._context)
            except PromptTooLongError as error:
                too_long[index] = refused(error, sampling)
                continue
            for number in range(sampling.num_samples):
                prompts.append({"prompt_token_ids": tokens})
                parameters.append(
                    _parameters(sampling, sampling.seed_of(request.problem_id, number))
                )
        outputs = iter(self._answer(prompts, parameters, progress) if prompts else [])
        return [
            too_long.get(index) or list(islice(outputs, sampling.num_samples))
            for index in range(len(requests))
        ]

    def _answer(
        self,
        prompts: list[dict[str, list[int]]],
        parameters: "list[SamplingParams]",
        progress: Progress,
    ) -> list[Generated]:
        with self._turn:
            outputs = self._llm.generate(
                prompts,
                parameters,
                lora_request=self._adapter,
                use_tqdm=_bar(progress),
            )
        return [_read(output.outputs[0]) for output in outputs]

    def close(self) -> None:
        """Stop vLLM's processes and free GPU memory."""
        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        gc.collect()


def _bar(progress: Progress) -> type:
    """A progress bar for vLLM that draws nothing and reports the number of finished completions.

    tqdm reads TQDM_DISABLE when it is imported, so it is not imported with this module.
    """
    from tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options | {"disable": False})  # overrides TQDM_DISABLE

        def display(self, *_: Any, **__: Any) -> None:
            # Called whenever the bar would be drawn; vLLM's other bar is for adding prompts.
            if self.desc.startswith("Processed"):
                progress(self.n, self.total)

        def clear(self, *_: Any, **__: Any) -> None:
            pass  # it is never drawn

    return Bar


def _parameters(sampling: Sampling, seed: int) -> "SamplingParams":
    from vllm import SamplingParams

    # Besides `stop`, vLLM ends an answer at every end token of the model's generation config.
    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p if sampling.temperature else 1.0,
        max_tokens=sampling.max_new_tokens,
        seed=seed if sampling.temperature else None,
        stop=list(sampling.stop),
    )


def _read(output: Any) -> Generated:
    return as_generated(
        output.text, len(output.token_ids), truncated=output.finish_reason == "length"
    )


def _rank(adapter: str) -> int:
    """The rank of an adapter, rounded up to a value that vLLM supports."""
    path = Path(adapter, "adapter_config.json")
    if not path.is_file():
        raise UserError(f"{adapter} is not a LoRA adapter: it contains no {path.name}")
    rank: int = json.loads(path.read_text(encoding="utf-8"))["r"]
    return max(8, 1 << (rank - 1).bit_length())


def _options_of_cpu() -> dict[str, Any]:
    """Engine options for CPUs; empty on a GPU."""
    import torch

    if torch.cuda.is_available():
        return {}
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GB
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    # On a CPU, vLLM 0.31 crashes on seeded sampling with chunked prefill: "CPU Generator does not
    # use offset".
    return {"enforce_eager": True, "enable_chunked_prefill": False}


def has_vllm() -> bool:
    """Whether vLLM is installed."""
    return importlib.util.find_spec("vllm") is not None


def require_vllm() -> None:
    """Raise `UserError` where vLLM is not installed."""
    if not has_vllm():
        raise UserError(
            "vLLM is not installed; install it (pip install 'cotpipe[vllm]'), or choose another "
            "engine: transformers, or openai with a server"
        )


@engines.register("vllm")
@contextmanager
def open_vllm(model: Model, settings: Settings) -> Iterator[VllmEngine]:
    """Open a model in vLLM. Raises `UserError` if vLLM is not installed."""
    require_vllm()
    engine = VllmEngine(model, settings)
    try:
        yield engine
    finally:
        engine.close()
