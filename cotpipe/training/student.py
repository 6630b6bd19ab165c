"""Loading a student for training, and saving it as a plain Hugging Face directory."""

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
)

from cotpipe.hardware.devices import training_attention
from cotpipe.recipe.trainers import Lora


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


def save_student(trainer: Trainer, tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Save for transformers and vLLM: merged adapters, safetensors, tokenizer, chat template."""
    trainer.accelerator.wait_for_everyone()
    if not trainer.is_world_process_zero():
        return
    model = trainer.accelerator.unwrap_model(trainer.model)
    if isinstance(model, PeftModel):
        model = model.merge_and_unload()
    model.save_pretrained(path, safe_serialization=True)
    tokenizer.save_pretrained(path)
