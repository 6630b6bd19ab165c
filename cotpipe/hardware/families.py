"""Which models compute each token from the tokens it sees and from nothing else."""

from transformers import PreTrainedConfig

_FAMILIES = frozenset({"llama", "mistral", "olmo2", "qwen2", "qwen3", "smollm3"})
"""Model types for which the tests show that packing and decoding in place change no log-probability."""


def has_plain_attention(config: PreTrainedConfig) -> bool:
    """Whether only a mask decides what a token sees, wherever it lies in the sequence.

    Not so where a window slides over the sequence or a state runs along it (linear attention,
    Mamba), and with images, whose place counts. Families that were not tested do not count.
    """
    layers = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None)
    return config.model_type in _FAMILIES and layers <= {"full_attention"} and window is None
