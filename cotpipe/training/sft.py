"""Supervised fine-tuning with TRL's SFTTrainer."""

from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel
from trl import SFTConfig, SFTTrainer
from typing_extensions import override

from cotpipe.data.rows import Example, read_rows
from cotpipe.hardware.families import has_plain_attention
from cotpipe.recipe.trainers import Sft
from cotpipe.training.arguments import shared_arguments
from cotpipe.training.data import sft_row, sort_within_batches, usable_rows
from cotpipe.training.job import Job
from cotpipe.training.keeping import KeepBest
from cotpipe.training.packing import PACKED, inputs_of, pack_rows
from cotpipe.training.progress import ReportProgress
from cotpipe.training.resume import ResumableTrainer, SaveTrainingState
from cotpipe.training.rollouts import RolloutTrainer
from cotpipe.training.student import lora_config, open_student, save_student
from cotpipe.training.validation import Course


class TargetTrainer(ResumableTrainer, RolloutTrainer, SFTTrainer):
    """TRL's SFTTrainer with pickle-free training states; it can validate, and counts its tokens.

    The rows of a micro-batch are packed behind what they have in common, their system prompt at
    least; models without plain attention (`has_plain_attention`) are trained as in TRL.
    """

    def __init__(self, model: PreTrainedModel, tokens: Sequence[int], **arguments: Any) -> None:
        """Prepare the trainer.

        Args:
            model: The student.
            tokens: The tokens that each optimizer step trains on, prompts included.
            arguments: Those of `SFTTrainer`.
        """
        self._packs = has_plain_attention(model.config)
        if self._packs:
            model.set_attn_implementation(PACKED)
        super().__init__(model=model, **arguments)
        self._tokens = tokens

    @override
    def compute_loss(self, model: Any, inputs: dict[str, Any], *others: Any, **named: Any) -> Any:
        if self._packs and len(inputs["input_ids"]) > 1:
            rows = pack_rows(inputs["input_ids"], inputs["attention_mask"], inputs["labels"])
            inputs = inputs_of(rows)
        return super().compute_loss(model, inputs, *others, **named)

    @override
    def log(self, logs: dict[str, Any], *others: Any, **named: Any) -> None:
        if "loss" in logs:
            logs["trained_tokens"] = self._tokens[self.state.global_step - 1]
        super().log(logs, *others, **named)


def train_sft(job: Job, trainer: Sft) -> None:
    """Train on the examples in order, with the loss on targets only, and save the checkpoint.

    There is none with too few rows for one optimizer step, or if validation keeps the initial one.
    """
    model, tokenizer = open_student(job.student)
    rows = [sft_row(example, tokenizer) for example in read_rows(job.examples, Example)]
    # TRL silently truncates longer rows, which would cut off the end of the target.
    size = trainer.batch_size
    rows = usable_rows(rows, trainer.max_length, size)
    if not rows:
        return
    rows = sort_within_batches(rows, size)
    steps = [rows[start : start + size] for start in range(0, len(rows), size)]
    keeping = None
    if job.validation:
        # An answer that is longer than all that it is taught is wrong, or on its way to be.
        longest = max(sum(row["completion_mask"]) for row in rows)
        ramp_end = job.stage.ramp_end(len(steps))
        course = Course(trainer.validation, shortens=False, ramp_end=ramp_end)
        keeping = KeepBest(job, course, longest)
    sft = TargetTrainer(
        tokens=[sum(row["length"] for row in step) for step in steps],
        model=model,
        args=_config(job, trainer),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=lora_config(trainer.lora),
        callbacks=[
            ReportProgress(job.stage),
            *([keeping] if keeping else []),
            SaveTrainingState(job.training_state_seconds),
        ],
    )
    if keeping:
        keeping.trainer = sft
    sft.train(resume_from_checkpoint=str(job.resume) if job.resume else None)
    if keeping is None or keeping.take_best():
        save_student(sft, tokenizer, job.output)


def _config(job: Job, trainer: Sft) -> SFTConfig:
    return SFTConfig(
        **shared_arguments(job),
        lr_scheduler_type="linear",
        train_sampling_strategy="sequential",  # the row order is the curriculum
        max_length=trainer.max_length,
        completion_only_loss=True,
    )
