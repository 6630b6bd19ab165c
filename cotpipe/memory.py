"""How much memory a stage takes on one device: an estimate, with its arithmetic."""

from dataclasses import dataclass
from typing import Any

from cotpipe.config import Grpo, Stage1

_GB = 1e9


@dataclass(frozen=True)
class ModelShape:
    """What of a model decides its memory."""

    num_weights: int
    num_layers: int
    width: int
    num_heads: int
    num_key_heads: int
    vocabulary: int

    @property
    def key_width(self) -> int:
        """Width of all keys of one position in one layer."""
        return self.width // self.num_heads * self.num_key_heads


@dataclass(frozen=True)
class Need:
    """One thing that takes memory."""

    what: str
    gigabytes: float
    arithmetic: str

    def __str__(self) -> str:
        return f"{self.what} {self.gigabytes:.1f} GB ({self.arithmetic})"


def shape_of(config: Any) -> ModelShape:
    """The shape of a model from its transformers configuration; its weights are counted, not made."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        num_weights = AutoModelForCausalLM.from_config(config).num_parameters()
    heads = config.num_attention_heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    return ModelShape(num_weights, config.num_hidden_layers, config.hidden_size, heads, key_heads, config.vocab_size)


def needs_of(stage: Stage1 | Grpo, model: ModelShape, keeps_attention: bool) -> list[Need]:
    """What training a stage takes at most: float32 weights, AdamW, activations in 16 bits, logits, and what GRPO adds.

    Rows are taken as long as the recipe lets them be. Activations per layer are s b h (34 + 5 a s / h) bytes, 2 s b h
    where they are computed again (Korthikanti et al., 2022, arXiv 2205.05198, sections 4.1 and 4.2), for b rows of s
    tokens, width h and a heads; the second term falls away where the attention matrix is not kept, as fused attention
    does not.
    """
    length = stage.max_length if isinstance(stage, Stage1) else stage.max_prompt_length + stage.max_new_tokens
    scored = length if isinstance(stage, Stage1) else stage.max_new_tokens
    rows, trained = stage.micro_batch, _num_trained(stage, model)
    of_attention = 5 * model.num_heads * length / model.width if keeps_attention else 0.0
    per_position = 2.0 if stage.gradient_checkpointing else 34 + of_attention
    found = [
        Need("weights", 4 * model.num_weights / _GB, f"{_short(model.num_weights)} x 4 bytes"),
        Need("gradients and AdamW", 12 * trained / _GB, f"{_short(trained)} trained x 12 bytes"),
        Need(
            "activations",
            per_position * length * rows * model.width * model.num_layers / _GB,
            f"{rows} rows x {length} tokens x {model.width} x {model.num_layers} layers x {per_position:.0f} bytes",
        ),
        Need(
            "logits",
            10 * rows * scored * model.vocabulary / _GB,
            f"{rows} rows x {scored} tokens x {model.vocabulary} x 10 bytes (16 bits, float32, gradient)",
        ),
    ]
    return found + (_of_rollouts(stage, model, length) if isinstance(stage, Grpo) else [])


def _of_rollouts(stage: Grpo, model: ModelShape, length: int) -> list[Need]:
    completions = stage.group_size * stage.prompts_per_step
    found = [
        Need(
            "KV cache",
            4 * model.key_width * model.num_layers * completions * length / _GB,
            f"{completions} completions x {length} tokens x {model.num_layers} layers x {model.key_width} x 4 bytes",
        )
    ]
    if stage.lora is None:
        found.append(Need("copy that writes", 2 * model.num_weights / _GB, f"{_short(model.num_weights)} x 2 bytes"))
        if stage.kl:
            found.append(Need("reference", 4 * model.num_weights / _GB, f"{_short(model.num_weights)} x 4 bytes"))
    return found


def _num_trained(stage: Stage1 | Grpo, model: ModelShape) -> int:
    """All weights, or those of the adapters: two matrices a layer, at most as wide as four times the model."""
    if stage.lora is None:
        return model.num_weights
    return len(stage.lora.target_modules) * model.num_layers * stage.lora.rank * 3 * model.width


def _short(count: int) -> str:
    return f"{count / 1e9:.2f} billion" if count >= 1e9 else f"{count / 1e6:.0f} million"
