"""The fastest dtype and attention implementation of this machine."""

import torch

from cotpipe.hardware.attention import GROUPED


def fast_dtype() -> torch.dtype:
    """bfloat16 with native hardware support (GPUs; CPUs with AVX-512 BF16), else float32."""
    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def training_attention() -> str:
    """The transformers attention implementation for training; fused attention is slow on a CPU."""
    return "sdpa" if torch.cuda.is_available() else "eager"


def generation_attention() -> str:
    """The attention implementation for generation; on a CPU, `eager` copies keys at every token."""
    return "sdpa" if torch.cuda.is_available() else GROUPED
