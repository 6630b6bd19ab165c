"""Sharing out weights, gradients and optimizer state among processes (FSDP), and gathering them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.state import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor

from cotpipe.errors import UserError
from cotpipe.hardware.devices import fast_dtype
from cotpipe.training.job import Job
from cotpipe.training.processes import world_size

_CONFIGURATION = Path(__file__).with_name("fsdp.yaml")


class ShardedTrainer:
    """Trainer mixin that trains with shared out weights as with whole ones."""

    args: Any
    accelerator: Any
    model: Any
    is_fsdp_enabled: bool

    def create_accelerator_and_postprocess(self) -> None:
        """As transformers, and weights are shared out on CPUs, too, where accelerate does not.

        Gradients are added up in float32, as without sharing out.
        """
        super().create_accelerator_and_postprocess()  # type: ignore[misc]
        if not self.args.fsdp:
            return
        state = self.accelerator.state
        if self.args.use_cpu:
            PartialState().distributed_type = state.distributed_type = DistributedType.FSDP
            state.fsdp_plugin = FullyShardedDataParallelPlugin(**self.args.fsdp_plugin_args)
            self.is_fsdp_enabled = True
        state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if self.args.bf16 else torch.float32,
            reduce_dtype=torch.float32,
        )

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save whole weights, whatever the number of processes."""
        if not self.is_fsdp_enabled:
            super().save_model(output_dir, _internal_call)  # type: ignore[misc]
            return
        weights = gathered(self.model.state_dict().items(), self.args.should_save)
        if self.args.should_save:
            self._save(output_dir, weights)  # type: ignore[attr-defined]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if not self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]

    def _prepare_for_training(
        self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None
    ) -> Any:
        if self.is_fsdp_enabled and resume_from_checkpoint:
            # The weights that are saved are whole, and so are those of the model until it is prepared.
            self.is_fsdp_enabled = False
            self._load_from_checkpoint(resume_from_checkpoint)
            self.is_fsdp_enabled = True
        prepared = super()._prepare_for_training(  # type: ignore[misc]
            max_steps, train_dataloader, resume_from_checkpoint
        )
        is_shared_out = isinstance(next(self.model.parameters()), DTensor)
        assert is_shared_out == bool(self.args.fsdp)  # accelerate leaves them whole without a word
        return prepared


def sharding_arguments(job: Job) -> dict[str, Any]:
    """Arguments for `TrainingArguments`; none where each process holds everything.

    Raises `UserError` for float16, whose gradients would need a scale of their own.
    """
    if job.parallel == "ddp" or world_size() == 1:
        return {}
    if fast_dtype(job.precision) == torch.float16:
        raise UserError(
            "COTPIPE_PARALLEL=fsdp does not train in float16, the number format of this GPU; set "
            "COTPIPE_PARALLEL=ddp, or COTPIPE_PRECISION=float32"
        )
    return {"fsdp": True, "fsdp_config": load_config_from_file(str(_CONFIGURATION)).fsdp_config}


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that may be shared out, gathered; all processes must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(named: Iterable[tuple[str, torch.Tensor]], is_kept: bool) -> dict[str, torch.Tensor]:
    """Whole tensors in the memory of the CPU; all processes must call this.

    Args:
        named: Tensors by name.
        is_kept: Whether this process gets them; others get none.
    """
    found = {}
    for name, tensor in named:
        gathered_one = whole(tensor.detach())
        if is_kept:
            found[name] = gathered_one.cpu().contiguous()
    return found


def shared_out_as(other: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """A whole tensor, shared out as another one of its shape is; all processes must call this."""
    if not isinstance(other, DTensor) or tensor.shape != other.shape:
        return tensor
    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements)
