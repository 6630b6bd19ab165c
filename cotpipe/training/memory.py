"""Estimating the memory that a stage takes on one device, with the arithmetic."""

from dataclasses import dataclass
from typing import Any

from cotpipe.recipe.trainers import Grpo, Sft
from cotpipe.training.validation import ANSWERS_AT_ONCE

_GB = 1e9


@dataclass(frozen=True)
class ModelShape:
    """The dimensions of a model that determine its memory."""

    num_weights: int
    num_layers: int
    width: int
    num_heads: int
    key_width: int  # of the keys of one position in one layer, of all heads together
    vocabulary: int


@dataclass(frozen=True)
class Need:
    """One component of the memory estimate."""

    what: str
    gigabytes: float
    arithmetic: str

    def __str__(self) -> str:
        return f"{self.what} {self.gigabytes:.1f} GB ({self.arithmetic})"


def shape_of(config: Any) -> ModelShape:
    """The shape of a model from its transformers configuration; allocates no weights."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        num_weights = AutoModelForCausalLM.from_config(config).num_parameters()
    heads = config.num_attention_heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return ModelShape(
        num_weights=num_weights,
        num_layers=config.num_hidden_layers,
        width=config.hidden_size,
        num_heads=heads,
        key_width=head_width * key_heads,
        vocabulary=config.vocab_size,
    )


def needs_of(
    trainer: Sft | Grpo,
    model: ModelShape,
    keeps_attention: bool,
    num_bytes: int,
    num_holders: int = 1,
) -> list[Need]:
    """The peak memory of training in one process, by component.

    Counts float32 weights, AdamW, activations, logits, and what writing completions adds, for rows
    of the maximum length that the recipe allows. With 16 bits, activations per layer take
    s b h (34 + 5 a s / h) bytes, or 2 s b h with gradient checkpointing (Korthikanti et al., 2022,
    arXiv 2205.05198, sections 4.1 and 4.2), for b rows of s tokens, width h and a heads. The second
    term is zero if the attention matrix is not kept, as with fused attention.

    Args:
        trainer: The trainer of the stage.
        model: The student.
        keeps_attention: Whether the attention matrix is kept.
        num_bytes: Bytes of a number in the format that the machine computes in.
        num_holders: Processes that hold weights, gradients and optimizer state together.
    """
    length = trainer.longest_row
    scored = trainer.max_new_tokens if isinstance(trainer, Grpo) else length
    rows = trainer.micro_batch
    of_attention = 5 * model.num_heads * length / model.width if keeps_attention else 0.0
    per_position = num_bytes / 2 * (2 if trainer.gradient_checkpointing else 34 + of_attention)
    per_logit = num_bytes + 8
    found = [
        *_of_weights(trainer, model, num_holders),
        Need(
            "activations",
            per_position * length * rows * model.width * model.num_layers / _GB,
            f"{rows} rows x {length} tokens x {model.width} x {model.num_layers} layers "
            f"x {per_position:.0f} bytes",
        ),
        Need(
            "logits",
            per_logit * rows * scored * model.vocabulary / _GB,
            f"{rows} rows x {scored} tokens x {model.vocabulary} x {per_logit} bytes "
            f"({8 * num_bytes} bits, float32, gradient)",
        ),
    ]
    writes = isinstance(trainer, Grpo) or trainer.keep == "best"
    if writes:
        found += _of_rollouts(trainer, model, length, num_bytes)
    return found


def _of_weights(trainer: Sft | Grpo, model: ModelShape, num_holders: int) -> list[Need]:
    trained = _num_trained(trainer, model)
    share = f" / {num_holders} processes" if num_holders > 1 else ""
    weights = 4 * model.num_weights / num_holders / _GB
    arithmetic = f"{_short(model.num_weights)} x 4 bytes{share}"
    found = [
        Need("weights", weights, arithmetic),
        Need(
            "gradients and AdamW",
            12 * trained / num_holders / _GB,
            f"{_short(trained)} trained x 12 bytes{share}",
        ),
    ]
    if isinstance(trainer, Grpo) and trainer.lora is None and trainer.kl:
        found.append(Need("reference model", weights, arithmetic))
    return found


def _of_rollouts(trainer: Sft | Grpo, model: ModelShape, length: int, num_bytes: int) -> list[Need]:
    completions = trainer.rows_per_step if isinstance(trainer, Grpo) else ANSWERS_AT_ONCE
    return [
        Need(
            "KV cache",
            2 * num_bytes * model.key_width * model.num_layers * completions * length / _GB,
            f"{completions} completions x {length} tokens x {model.num_layers} layers "
            f"x {model.key_width} x {2 * num_bytes} bytes",
        ),
        Need(
            "copy for generation",
            num_bytes * model.num_weights / _GB,
            f"{_short(model.num_weights)} x {num_bytes} bytes",
        ),
    ]


def _num_trained(trainer: Sft | Grpo, model: ModelShape) -> int:
    """All weights, or those of the LoRA adapters: two matrices per layer, at most 4x the width."""
    if trainer.lora is None:
        return model.num_weights
    return len(trainer.lora.target_modules) * model.num_layers * trainer.lora.rank * 3 * model.width


def _short(count: int) -> str:
    return f"{count / 1e9:.2f} billion" if count >= 1e9 else f"{count / 1e6:.0f} million"
