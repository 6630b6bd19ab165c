"""Stage 1: supervised fine-tuning on masked shuffled reconstruction, with TRL's SFTTrainer."""

from typing import Any

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from cotpipe.rows import Example, read_rows
from cotpipe.training.arguments import shared_arguments
from cotpipe.training.data import keep_within, sort_within_batches
from cotpipe.training.job import Stage1Job
from cotpipe.training.progress import ReportProgress
from cotpipe.training.resume import ResumableTrainer, SaveNowAndThen
from cotpipe.training.student import lora_config, open_student, save_student


class ResumableSFTTrainer(ResumableTrainer, SFTTrainer):
    """TRL's trainer with checkpoints to go on from."""


def train_stage1(job: Stage1Job) -> None:
    """Train on the examples in their order, with the loss on the targets alone, and save the checkpoint."""
    stage = job.stage
    model, tokenizer = open_student(job.student)
    rows: list[dict[str, Any]] = [
        {"prompt": example.prompt, "completion": [{"role": "assistant", "content": example.target}]}
        for example in read_rows(job.examples, Example)
    ]
    # TRL cuts a longer row in silence, and with it the end of the target.
    rows = keep_within(rows, tokenizer, stage.max_length)
    rows = sort_within_batches(rows, tokenizer, stage.batch_size)
    config = SFTConfig(
        **shared_arguments(job, rows_per_step=stage.batch_size),
        lr_scheduler_type="linear",
        train_sampling_strategy="sequential",  # the order of the rows is the curriculum
        max_length=stage.max_length,
        completion_only_loss=True,
    )
    trainer = ResumableSFTTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=lora_config(stage.lora),
        callbacks=[ReportProgress(), SaveNowAndThen(job.checkpoint_seconds)],
    )
    trainer.train(resume_from_checkpoint=str(job.resume) if job.resume else None)
    save_student(trainer, tokenizer, job.output)
