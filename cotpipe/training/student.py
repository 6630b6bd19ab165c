"""Loading a student for training, and saving it as a plain Hugging Face directory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
)

from cotpipe.hardware.devices import training_attention
from cotpipe.recipe.trainers import Lora
from cotpipe.training.fsdp import gathered, shared_out_as


def open_student(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the model and its tokenizer; float32 weights, as bf16 rounds away small updates."""
    model = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation=training_attention()
    )
    return model, AutoTokenizer.from_pretrained(path, padding_side="left")


def lora_config(lora: Lora | None) -> LoraConfig | None:
    """The PEFT configuration for the recipe's `lora` section."""
    if lora is None:
        return None
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules),
        task_type="CAUSAL_LM",
    )


def merged_weights(student: PreTrainedModel | PeftModel) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights of a student by name, with its adapters added; its own stay as they are."""
    plain = student.get_base_model() if isinstance(student, PeftModel) else student
    for name, weight in plain.named_parameters():
        layer_name, _, last = name.rpartition(".base_layer.")
        if layer_name:
            layer: Any = plain.get_submodule(layer_name)
            deltas = map(layer.get_delta_weight, layer.active_adapters) if last == "weight" else ()
            yield f"{layer_name}.{last}", sum(deltas, start=weight)
        elif ".lora_" not in name:
            yield name, weight


def save_student(trainer: Trainer, tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Save for transformers and vLLM: merged adapters, safetensors, tokenizer, chat template."""
    trainer.accelerator.wait_for_everyone()
    is_main, model = (
        trainer.is_world_process_zero(),
        trainer.accelerator.unwrap_model(trainer.model),
    )
    weights = None
    if trainer.is_fsdp_enabled:
        weights = gathered(merged_weights(model), is_main)
    if not is_main:
        return
    if isinstance(model, PeftModel):
        model = model.get_base_model() if weights else model.merge_and_unload()
    model.save_pretrained(path, state_dict=weights)
    tokenizer.save_pretrained(path)


def save_trained(model: PreTrainedModel | PeftModel, path: Path, is_main: bool) -> None:
    """Save the trained weights alone, from the main process: all, or those of the adapters."""
    trained = ((name, one) for name, one in model.named_parameters() if one.requires_grad)
    weights = gathered(trained, is_main)
    if is_main:
        save_file(weights, path)


def load_trained(model: PreTrainedModel | PeftModel, path: Path) -> None:
    """Put back what `save_trained` saved."""
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name, saved in load_file(path).items():
            weights[name].copy_(shared_out_as(weights[name], saved))
