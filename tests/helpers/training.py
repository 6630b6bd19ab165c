"""Training within the test's process, whose start would take ten times as long as what it trains."""

from collections.abc import Callable
from typing import Any

import pytest

from cotpipe.recipe.trainers import Sft
from cotpipe.training.job import Job
from cotpipe.training.launch import Trained
from cotpipe.training.messages import Event, Kept, Message, Rows, SavedTrainingState, Validated


def train_here(
    job: Job,
    on_event: Callable[[Event], Any] = print,
    on_training_state: Callable[[SavedTrainingState], Any] = print,
) -> Trained:
    """Do what a training process does; what either callback raises ends the training."""
    import trl.trainer.utils

    from cotpipe.training import data, grpo, keeping, progress, resume
    from cotpipe.training.cpu import score_targets_only
    from cotpipe.training.sft import train_sft

    trained = Trained()

    def take(message: Message, _output: object = None) -> None:
        match message:
            case Event():
                trained.events.append(message)
                on_event(message)
            case SavedTrainingState():
                on_training_state(message)
            case Validated():
                trained.validated.append(message)
            case Kept():
                trained.kept = message
            case Rows():
                trained.rows = message

    job.work.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        for module in (data, grpo, keeping, progress, resume):
            patch.setattr(module, "write_line", take)
        # This puts it back at the end.
        patch.setattr(trl.trainer.utils, "_use_triton", trl.trainer.utils._use_triton)
        score_targets_only()
        trainer = job.stage.trainer
        if isinstance(trainer, Sft):
            train_sft(job, trainer)
        else:
            grpo.train_grpo(job, trainer)
    return trained
