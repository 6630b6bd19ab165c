"""TRL's GRPOTrainer, made fast: each prompt is computed once, and rows without signal not at all."""

import math
from typing import Any

import torch
from transformers import PreTrainedModel
from trl import GRPOTrainer
from trl.trainer.utils import split_tensor_dict
from typing_extensions import override

from cotpipe.hardware.families import has_plain_attention
from cotpipe.training.packing import PACKED, inputs_of, is_worth_packing, pack
from cotpipe.training.rollouts import RolloutTrainer

_ROUNDING = 1e-6
"""Advantages up to here are what rounding leaves of equal rewards."""


class GroupTrainer(RolloutTrainer, GRPOTrainer):
    """GRPO that computes the prompt of a group once, in its rollouts and in training.

    Models without plain attention (`has_plain_attention`) are trained as in TRL.
    """

    _buffered_inputs: Any

    def __init__(self, model: PreTrainedModel, **arguments: Any) -> None:
        self._packs = has_plain_attention(model.config)
        if self._packs:
            model.set_attn_implementation(PACKED)
        super().__init__(model=model, **arguments)

    @property
    @override
    def rollout_batch(self) -> int:
        """The completions of an optimizer step that this process writes."""
        return int(self.args.generation_batch_size)

    def _generate_single_turn(self, prompt_ids: list[list[int]], *others: Any, **named: Any) -> Any:
        return self._written(prompt_ids, None), None

    def _written(self, prompts: list[list[int]], seeds: list[int] | None) -> list[list[int]]:
        """A completion of each prompt; see `Decoder.complete`."""
        completions = self.rollouts().complete(
            prompts, 1, self.temperature, self.top_p, self.max_completion_length, seeds=seeds
        )
        return [only for (only,) in completions]

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """As TRL's, but rows are not shuffled: those of a group share a micro-batch."""
        if not self.model.training:
            return super()._prepare_inputs(generation_batch)
        parts = self.args.steps_per_generation
        if self._step % (parts * self.num_iterations) == 0 or self._buffered_inputs is None:
            scored = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = split_tensor_dict(scored, parts)
        return self._buffered_inputs[self._step % parts]

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **options: Any,
    ) -> Any:
        size = batch_size or len(input_ids)
        if not self._packs or not is_worth_packing(input_ids, attention_mask, logits_to_keep):
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, size, **options
            )
        log_probs, entropies = [], []
        for ids, mask in zip(input_ids.split(size), attention_mask.split(size), strict=True):
            packed = pack(ids, mask, logits_to_keep)
            with self.accelerator.autocast():
                outputs = model(**inputs_of(packed), fused_lm_head=True)
            log_probs.append(packed.unpack(outputs.log_probs))
            if options.get("compute_entropy"):
                entropies.append(packed.unpack(outputs.entropy))
        return torch.cat(log_probs), torch.cat(entropies) if entropies else None, None

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        if not self._skips_idle_rows():
            return super()._compute_loss(model, inputs)
        inputs = without_idle_rows(inputs)
        loss = super()._compute_loss(model, inputs)
        if not self.accelerator.reduce(inputs["completion_mask"].sum()):
            mode = "train" if self.model.training else "eval"
            self._metrics[mode]["entropy"][-1] = math.nan  # of no token: TRL's mean leaves it out
        return loss

    def _skips_idle_rows(self) -> bool:
        """Whether rows without advantage add nothing to loss and gradient.

        The loss "bnpo" divides by the tokens of the micro-batch, which would be fewer.
        """
        return (
            self._packs
            and self.beta == 0
            and not self._entropy_bonus_enabled
            and self.top_entropy_quantile == 1
            and self.loss_type != "bnpo"
        )


def without_idle_rows(inputs: dict[str, Any]) -> dict[str, Any]:
    """A micro-batch in which completions without advantage are masked.

    As TRL masks truncated completions: they still count wherever the loss divides by rows, and the
    number of tokens by which it divides was counted before.
    """
    counts = (inputs["advantages"].abs() > _ROUNDING).long()[:, None]
    masked = {"completion_mask": inputs["completion_mask"] * counts}
    if "old_per_token_logps" in inputs:  # else their ratio, of no log-probability, may overflow
        masked["old_per_token_logps"] = inputs["old_per_token_logps"] * counts
    return inputs | masked
