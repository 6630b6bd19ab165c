"""What this machine computes fast in."""

import torch

from cotpipe.attention import GROUPED


def fast_dtype() -> torch.dtype:
    """bfloat16 where the processor multiplies it natively (GPUs; CPUs with AVX-512 BF16), else float32."""
    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def training_attention() -> str:
    """The attention implementation of transformers to train with: the fused one is slow on a CPU."""
    return "sdpa" if torch.cuda.is_available() else "eager"


def generation_attention() -> str:
    """The one to generate with: on a CPU the plain one copies keys at every token, and ours does not."""
    return "sdpa" if torch.cuda.is_available() else GROUPED
