"""The trainer arguments that all stages share."""

from typing import Any

import torch

from cotpipe.hardware import fast_dtype
from cotpipe.training.job import Stage1Job, Stage2Job, Stage3Job


def shared_arguments(job: Stage1Job | Stage2Job | Stage3Job, rows_per_step: int) -> dict[str, Any]:
    """Arguments for `SFTConfig` and `GRPOConfig`; `rows_per_step` are the rows (or completions) per optimizer step."""
    stage = job.stage
    return {
        "output_dir": str(job.work),
        "use_cpu": not torch.cuda.is_available(),
        "bf16": fast_dtype() == torch.bfloat16,  # autocast; the weights stay float32
        "seed": job.seed,
        "num_train_epochs": 1,  # the table holds every epoch
        "learning_rate": stage.learning_rate,
        "optim": "adamw_torch_fused",
        "warmup_steps": stage.warmup_steps,
        "per_device_train_batch_size": stage.micro_batch,
        "gradient_accumulation_steps": rows_per_step // stage.micro_batch,
        "gradient_checkpointing": stage.gradient_checkpointing,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
