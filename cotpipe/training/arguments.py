"""Trainer arguments shared by all stages."""

from typing import Any

import torch

from cotpipe.hardware.devices import fast_dtype
from cotpipe.training.fsdp import sharding_arguments
from cotpipe.training.job import Job
from cotpipe.training.processes import accumulation_steps, world_size
from cotpipe.training.trackers import tracking_arguments


def shared_arguments(job: Job) -> dict[str, Any]:
    """Arguments for `SFTConfig` and `GRPOConfig`.

    Raises `UserError` if the processes cannot share the rows of an optimizer step evenly.
    """
    trainer, dtype = job.stage.trainer, fast_dtype(job.precision)
    steps = accumulation_steps(trainer.rows_per_step, trainer.micro_batch, world_size())
    return {
        "output_dir": str(job.work),
        "use_cpu": not torch.cuda.is_available(),
        "bf16": dtype == torch.bfloat16,  # autocast; weights stay float32
        "fp16": dtype == torch.float16,  # the same, and the loss is scaled
        "seed": job.seed,
        "num_train_epochs": 1,  # the training table already contains every epoch
        "learning_rate": trainer.learning_rate,
        "optim": "adamw_torch_fused",
        "warmup_steps": trainer.warmup_steps,
        "per_device_train_batch_size": trainer.micro_batch,
        "gradient_accumulation_steps": steps,
        "gradient_checkpointing": trainer.gradient_checkpointing,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would hide a loss that is not a number
        "save_strategy": "no",
        **tracking_arguments(job),
        **sharding_arguments(job),
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
