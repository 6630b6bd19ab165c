"""GRPO with TRL's GRPOTrainer and the stage's reward."""

from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from trl import GRPOConfig, GRPOTrainer

from cotpipe.data.rows import Example, read_rows
from cotpipe.hardware.devices import fast_dtype, generation_attention
from cotpipe.rationale.answers import answer_kind
from cotpipe.rationale.format import format_rationale
from cotpipe.rationale.lengths import length_in
from cotpipe.rationale.rewards import RewardParts, Target, reward_named
from cotpipe.recipe.trainers import Grpo
from cotpipe.training.arguments import shared_arguments
from cotpipe.training.data import grpo_row, usable_rows
from cotpipe.training.job import Job
from cotpipe.training.progress import ReportProgress
from cotpipe.training.resume import ResumableTrainer, SaveTrainingState
from cotpipe.training.student import lora_config, open_student, save_student


class RolloutGRPOTrainer(ResumableTrainer, GRPOTrainer):
    """Generates completions with a copy of the student in the device's fast dtype.

    Generating with the float32 training weights would cast them for every token; copying them once
    per generation batch halves rollout time on a CPU. With LoRA no copy is made.
    """

    _copy: PreTrainedModel | None = None
    model_wrapped: Any

    def _generate(self, prompts: list[Any]) -> Any:
        trained = self.model_wrapped
        student = self.accelerator.unwrap_model(trained)
        if isinstance(student, PeftModel):
            return super()._generate(prompts)
        self.model_wrapped = self._copy_of(student)
        try:
            return super()._generate(prompts)
        finally:
            self.model_wrapped = trained

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        # TRL restarts its micro-batch counter at zero, which would shift the generation batches.
        self._step = self.state.global_step * self.args.gradient_accumulation_steps

    def _copy_of(self, student: PreTrainedModel) -> PreTrainedModel:
        if self._copy is None:
            # Random initialization must not advance the generator: after a resume it happens later.
            with torch.random.fork_rng():
                copy = AutoModelForCausalLM.from_config(
                    student.config, dtype=fast_dtype(), attn_implementation=generation_attention()
                )
            copy.generation_config = student.generation_config
            self._copy = copy.to(student.device).eval()
        with torch.no_grad():
            for copied, trained in zip(self._copy.parameters(), student.parameters(), strict=True):
                copied.copy_(trained)
        return self._copy


def train_grpo(job: Job, trainer: Grpo) -> None:
    """Train on the prompts in order with the stage's reward, and save the checkpoint.

    With too few rows for one optimizer step, there is no checkpoint.
    """
    model, tokenizer = open_student(job.student)
    examples = list(read_rows(job.examples, Example))
    rows = [grpo_row(example, index, tokenizer) for index, example in enumerate(examples)]
    rows = usable_rows(rows, trainer.max_prompt_length, trainer.prompts_per_step)
    if not rows:
        return
    reward = _reward_of(job, trainer, tokenizer)

    def rewards(
        completions: list[Any], row: list[int], log_metric: Callable[..., None], **_: Any
    ) -> list[float]:
        texts = [messages[0]["content"] for messages in completions]
        parts = [reward(text, examples[index]) for text, index in zip(texts, row, strict=True)]
        log_metric("correct", sum(part.correct for part in parts) / len(parts))
        log_metric("valid_format", sum(part.valid_format for part in parts) / len(parts))
        return [part.reward for part in parts]

    grpo = RolloutGRPOTrainer(
        model=model,
        reward_funcs=rewards,
        args=_config(job, trainer),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=lora_config(trainer.lora),
        callbacks=[ReportProgress(job.stage), SaveTrainingState(job.training_state_seconds)],
    )
    grpo.train(resume_from_checkpoint=str(job.resume) if job.resume else None)
    save_student(grpo, tokenizer, job.output)


def _reward_of(
    job: Job, trainer: Grpo, tokenizer: PreTrainedTokenizerBase
) -> Callable[[str, Example], RewardParts]:
    """The function that computes the reward of a completion for a training row."""
    length = length_in(trainer.reward.length_unit, tokenizer)
    named = reward_named(job.stage.reward_name(trainer))
    answers = answer_kind(job.answers)

    def reward(text: str, row: Example) -> RewardParts:
        teacher_length = length(format_rationale(row.teacher_steps, row.answer))
        target = Target(row.answer, len(row.teacher_steps), teacher_length, answers)
        return named(text, target, length)

    return reward


def _config(job: Job, trainer: Grpo) -> GRPOConfig:
    return GRPOConfig(
        **shared_arguments(job),
        lr_scheduler_type="constant_with_warmup",
        shuffle_dataset=False,  # the row order is the curriculum
        num_generations=trainer.group_size,
        max_completion_length=trainer.max_new_tokens,
        temperature=trainer.temperature,
        top_p=trainer.top_p,
        beta=trainer.kl,
        epsilon=trainer.clip_range,
        scale_rewards=trainer.scale_rewards,
    )
