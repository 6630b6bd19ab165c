"""Completions with the current weights of a student that is being trained."""

import copy
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel

from cotpipe.engines.base import end_tokens
from cotpipe.hardware.decoding import Decoder
from cotpipe.hardware.devices import generation_attention
from cotpipe.training.fsdp import whole
from cotpipe.training.student import merged_weights
from cotpipe.training.validation import ANSWERS_AT_ONCE


class RolloutTrainer:
    """Trainer mixin that writes completions in the middle of training.

    They are written with a copy of the student in the dtype that training computes in: its float32
    weights would be cast for every token.
    """

    args: Any
    accelerator: Any
    model_wrapped: Any
    processing_class: Any
    _copy: PreTrainedModel | None = None

    @property
    def _dtype(self) -> torch.dtype:
        """The dtype that training computes in."""
        if self.args.fp16:
            return torch.float16
        return torch.bfloat16 if self.args.bf16 else torch.float32

    @property
    def rollout_batch(self) -> int:
        """The number of completions that are written at a time."""
        return ANSWERS_AT_ONCE

    def rollouts(self) -> Decoder:
        """A writer of completions with the student's current weights, for this process."""
        model = self._updated_copy()
        ends = end_tokens(model.generation_config, self.processing_class)
        return Decoder(model, ends, self.rollout_batch)

    def _updated_copy(self) -> PreTrainedModel:
        """The student in the dtype of training, adapters merged, with its current weights."""
        student = self.accelerator.unwrap_model(self.model_wrapped)
        plain = student.get_base_model() if isinstance(student, PeftModel) else student
        if self._copy is None:
            # Random initialization must not advance the generator: after a resume it happens later.
            with torch.random.fork_rng():
                copied = AutoModelForCausalLM.from_config(
                    copy.deepcopy(plain.config),
                    dtype=self._dtype,
                    attn_implementation=generation_attention(),
                )
            copied.generation_config = plain.generation_config
            self._copy = copied.to(plain.device).eval()
        weights = dict(self._copy.named_parameters())
        with torch.no_grad():
            for name, weight in merged_weights(student):
                weights[name].copy_(whole(weight))
        return self._copy
