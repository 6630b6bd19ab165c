"""Stages 2 and 3: GRPO with TRL's trainer. One trainer for both; the reward is the argument."""

from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from trl import GRPOConfig, GRPOTrainer

from cotpipe.hardware import fast_dtype, generation_attention
from cotpipe.lengths import length_in
from cotpipe.rationale import format_rationale
from cotpipe.rewards import RewardParts, recovery_reward, rewrite_reward
from cotpipe.rows import Example, read_rows
from cotpipe.training.arguments import shared_arguments
from cotpipe.training.data import keep_within
from cotpipe.training.job import Stage2Job, Stage3Job
from cotpipe.training.progress import ReportProgress
from cotpipe.training.resume import ResumableTrainer, SaveNowAndThen
from cotpipe.training.student import lora_config, open_student, save_student

Reward = Callable[[str, Example], RewardParts]
"""The reward of one completion's text for one training row."""


class RolloutGRPOTrainer(ResumableTrainer, GRPOTrainer):
    """Writes its completions with a copy of the student in the fast number format.

    The float32 weights that are trained would be cast for every single token; a copy per generation batch halves
    the time of a rollout on a CPU. Adapters are written with as they are.
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
        # TRL counts micro-batches from zero again and would write a generation batch at the wrong moment.
        self._step = self.state.global_step * self.args.gradient_accumulation_steps

    def _copy_of(self, student: PreTrainedModel) -> PreTrainedModel:
        if self._copy is None:
            with torch.random.fork_rng():  # its first weights are random, and a resumed training draws them later
                copy = AutoModelForCausalLM.from_config(
                    student.config, dtype=fast_dtype(), attn_implementation=generation_attention()
                )
            copy.generation_config = student.generation_config
            self._copy = copy.to(student.device).eval()
        with torch.no_grad():
            for copied, trained in zip(self._copy.parameters(), student.parameters(), strict=True):
                copied.copy_(trained)
        return self._copy


def train_stage2(job: Stage2Job) -> None:
    """Masked completion, with the recovery reward."""
    _train(job, _recovery)


def train_stage3(job: Stage3Job) -> None:
    """Targeted rewriting, with the rewrite reward."""
    _train(job, _rewrite)


def _recovery(job: Stage2Job | Stage3Job, tokenizer: PreTrainedTokenizerBase) -> Reward:
    length = length_in(job.stage.reward.length_unit, tokenizer)
    return lambda text, row: recovery_reward(text, row.answer, len(row.teacher_steps), length)


def _rewrite(job: Stage2Job | Stage3Job, tokenizer: PreTrainedTokenizerBase) -> Reward:
    length = length_in(job.stage.reward.length_unit, tokenizer)
    return lambda text, row: rewrite_reward(
        text, row.answer, length(format_rationale(row.teacher_steps, row.answer)), length
    )


def _train(
    job: Stage2Job | Stage3Job, make_reward: Callable[[Stage2Job | Stage3Job, PreTrainedTokenizerBase], Reward]
) -> None:
    model, tokenizer = open_student(job.student)
    examples = list(read_rows(job.examples, Example))
    rows = [{"prompt": example.prompt, "row": index} for index, example in enumerate(examples)]
    reward = make_reward(job, tokenizer)

    def rewards(completions: list[Any], row: list[int], log_metric: Callable[..., None], **_: Any) -> list[float]:
        texts = [messages[0]["content"] for messages in completions]
        parts = [reward(text, examples[index]) for text, index in zip(texts, row, strict=True)]
        log_metric("correct", sum(part.correct for part in parts) / len(parts))
        log_metric("valid_format", sum(part.valid_format for part in parts) / len(parts))
        return [part.reward for part in parts]

    trainer = RolloutGRPOTrainer(
        model=model,
        reward_funcs=rewards,
        args=_config(job),
        train_dataset=Dataset.from_list(keep_within(rows, tokenizer, job.stage.max_prompt_length)),
        processing_class=tokenizer,
        peft_config=lora_config(job.stage.lora),
        callbacks=[ReportProgress(), SaveNowAndThen(job.checkpoint_seconds)],
    )
    trainer.train(resume_from_checkpoint=str(job.resume) if job.resume else None)
    save_student(trainer, tokenizer, job.output)


def _config(job: Stage2Job | Stage3Job) -> GRPOConfig:
    stage = job.stage
    return GRPOConfig(
        **shared_arguments(job, rows_per_step=stage.group_size * stage.prompts_per_step),
        lr_scheduler_type="constant_with_warmup",
        shuffle_dataset=False,  # the order of the rows is the curriculum
        num_generations=stage.group_size,
        max_completion_length=stage.max_new_tokens,
        temperature=stage.temperature,
        top_p=stage.top_p,
        beta=stage.kl,
        epsilon=stage.clip_range,
        scale_rewards=stage.scale_rewards,
    )
