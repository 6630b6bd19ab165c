"""Training on a CPU at a bearable speed: one correction of TRL 1.16.0."""

import torch
import trl.trainer.utils


def score_targets_only() -> None:
    """Make TRL's fused LM head project only the positions that have a label, as it does on GPUs.

    Elsewhere TRL scores every position (prompt and padding too) so that accelerators which compile per shape see one
    shape only. A CPU compiles nothing: there it only makes a step three times as long and its memory several times
    as large. The result is the same.
    """
    if not torch.cuda.is_available():
        trl.trainer.utils._use_triton = lambda device: True
