"""The fastest dtype and attention implementation of this machine."""

import hashlib
import logging
import os
import platform
import re
import tempfile
import time
from functools import cache
from pathlib import Path

import torch

from cotpipe.errors import UserError
from cotpipe.hardware.attention import GROUPED
from cotpipe.settings import Precision, Settings

logger = logging.getLogger(__name__)

_FASTER = 1.2
"""Less of a gain is not worth bfloat16's rounding, nor would it be found again every time."""
_ROUNDS = 5
_TENSOR_CORES = (7, 0)
"""The first compute capability with them."""
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_ROWS, _WIDTH = 128, 1024  # of the matrices that are multiplied


def fast_dtype(precision: Precision = "auto") -> torch.dtype:
    """The dtype to compute in: the one that is set, else the one that this machine is fastest in.

    For a GPU that is bfloat16 if it has it, else float16 if it has tensor cores (T4, V100). With a CPU
    bfloat16 depends on its instructions and on the libraries that know them, so it is measured.

    Raises `UserError` for float16 without a GPU.
    """
    if precision == "float16" and not torch.cuda.is_available():
        raise UserError(
            "COTPIPE_PRECISION=float16 is for GPUs, and there is none here; set it to auto, bfloat16 "
            "or float32"
        )
    if precision != "auto":
        return _DTYPES[precision]
    if not torch.cuda.is_available():
        return torch.bfloat16 if bfloat16_gain() >= _FASTER else torch.float32
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    has_tensor_cores = torch.cuda.get_device_capability() >= _TENSOR_CORES
    return torch.float16 if has_tensor_cores else torch.float32


def require_devices(count: int, setting: str) -> None:
    """Raise `UserError` if a setting asks for more GPUs than this machine has; any number of a CPU.

    Args:
        count: What is asked for.
        setting: The setting that does.
    """
    found = torch.cuda.device_count()
    if torch.cuda.is_available() and count > found:
        raise UserError(
            f"{setting} asks for {count} GPUs, and there are {found} here; set it to {found} or less"
        )


@cache
def bfloat16_gain() -> float:
    """How many times as fast as float32 this CPU multiplies matrices in bfloat16.

    Measured once per machine and version of torch, in some tenths of a second, and kept in
    `COTPIPE_CACHE`: all processes of a run, and those that resume it, go by the same figure.
    """
    told = f"{processor_name()}, torch {torch.__version__}"
    digest = hashlib.sha256(told.encode()).hexdigest()[:16]
    kept = Settings().cache.expanduser() / f"bfloat16-gain-{digest}.txt"
    if kept.exists():
        return float(kept.read_text(encoding="utf-8"))
    gain = _measured_gain()
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=kept.parent) as draft:
            draft.write(f"{gain:.3f}")
            draft.flush()
            os.link(draft.name, kept)
    except OSError as error:
        if kept.exists():  # another process was faster: its figure counts
            return float(kept.read_text(encoding="utf-8"))
        logger.warning("the faster number format is not kept, each process measures: %s", error)
    return gain


def processor_name() -> str:
    """The processor's name, as far as the system tells."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        found = re.search(r"^model name\s*: (.+)$", information.read_text(), re.MULTILINE)
        if found:
            return found[1]
    return platform.processor() or platform.machine()


def _measured_gain() -> float:
    """The best of several rounds, as other work may be going on; where bfloat16 is emulated, well below 1."""
    drawn = torch.Generator().manual_seed(0)
    exact = [torch.randn(rows, _WIDTH, generator=drawn) for rows in (_ROWS, _WIDTH)]
    rounded = [matrix.to(torch.bfloat16) for matrix in exact]
    times = [(_seconds(*exact), _seconds(*rounded)) for _ in range(_ROUNDS + 1)][1:]
    return min(slow for slow, _ in times) / min(fast for _, fast in times)


def _seconds(rows: torch.Tensor, weights: torch.Tensor) -> float:
    started = time.perf_counter()
    torch.nn.functional.linear(rows, weights)
    return time.perf_counter() - started


def training_attention() -> str:
    """The transformers attention implementation for training; fused attention is slow on a CPU."""
    return "sdpa" if torch.cuda.is_available() else "eager"


def generation_attention() -> str:
    """The attention implementation for generation; on a CPU, `eager` copies keys at every token."""
    return "sdpa" if torch.cuda.is_available() else GROUPED
