"""Supervised fine-tuning with TRL's SFTTrainer."""

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from cotpipe.data.rows import Example, read_rows
from cotpipe.recipe.trainers import Sft
from cotpipe.training.arguments import shared_arguments
from cotpipe.training.data import sft_row, sort_within_batches, usable_rows
from cotpipe.training.job import Job
from cotpipe.training.progress import ReportProgress
from cotpipe.training.resume import ResumableTrainer, SaveTrainingState
from cotpipe.training.student import lora_config, open_student, save_student


class ResumableSFTTrainer(ResumableTrainer, SFTTrainer):
    """TRL's SFTTrainer with pickle-free training states."""


def train_sft(job: Job, trainer: Sft) -> None:
    """Train on the examples in order, with the loss on targets only, and save the checkpoint.

    With too few rows for one optimizer step, there is no checkpoint.
    """
    model, tokenizer = open_student(job.student)
    rows = [sft_row(example, tokenizer) for example in read_rows(job.examples, Example)]
    # TRL silently truncates longer rows, which would cut off the end of the target.
    rows = usable_rows(rows, trainer.max_length, trainer.batch_size)
    if not rows:
        return
    rows = sort_within_batches(rows, trainer.batch_size)
    config = SFTConfig(
        **shared_arguments(job),
        lr_scheduler_type="linear",
        train_sampling_strategy="sequential",  # the row order is the curriculum
        max_length=trainer.max_length,
        completion_only_loss=True,
    )
    sft = ResumableSFTTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=lora_config(trainer.lora),
        callbacks=[ReportProgress(job.stage), SaveTrainingState(job.training_state_seconds)],
    )
    sft.train(resume_from_checkpoint=str(job.resume) if job.resume else None)
    save_student(sft, tokenizer, job.output)
