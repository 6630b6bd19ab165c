"""Validates while a stage trains, and keeps the best state."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any, TextIO

from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from cotpipe.data.rows import Example, read_rows
from cotpipe.rationale.answers import answer_kind
from cotpipe.rationale.turns import prompt_tokens
from cotpipe.training.job import Job
from cotpipe.training.messages import Event, Kept, Validated
from cotpipe.training.progress import write_line
from cotpipe.training.resume import add_to_training_state
from cotpipe.training.scoring import is_right
from cotpipe.training.student import load_trained, save_trained
from cotpipe.training.validation import Course

_BEST = "best.safetensors"
_HISTORY = "validations.json"


class KeepBest(TrainerCallback):
    """Validates before training and every few optimizer steps, and keeps the weights to hand on."""

    def __init__(
        self, job: Job, course: Course, max_new_tokens: int, output: TextIO = sys.stdout
    ) -> None:
        """Prepare the callback; the trainer is given later, as it is built with this.

        Args:
            job: What is trained, with validation problems whose questions are bare.
            course: Decides what to keep and when to end; shared with the trainer.
            max_new_tokens: Maximum length of an answer (tokens).
            output: Where messages go.
        """
        assert job.validation
        self.trainer: Any  # a `Trainer` that is a `RolloutTrainer`
        self.course = course
        self._problems = list(read_rows(job.validation, Example))
        self._answers = answer_kind(job.answers)
        self._max_new_tokens = max_new_tokens
        self._best = job.work / _BEST
        self._output = output
        if job.resume:
            self._restore(job.resume)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Validate the initial checkpoint; after a resume, tell the earlier validations again."""
        if state.global_step == 0:
            self._validate(state)
        elif state.is_world_process_zero:
            for validated in self.course.validated:
                self._tell(validated, state)
        control.should_training_stop = self.course.is_over

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Validate where it is time; all processes end training together."""
        step = state.global_step
        if step % self.course.settings.every == 0 or step == state.max_steps:
            self._validate(state)
            control.should_training_stop = control.should_training_stop or self.course.is_over
        return control

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put what was validated and kept so far into the training state."""
        add_to_training_state(args, state, self._write)

    def _write(self, folder: Path) -> None:
        history = [one.model_dump() for one in self.course.validated]
        (folder / _HISTORY).write_text(json.dumps(history), encoding="utf-8")
        if self.course.kept:
            shutil.copyfile(self._best, folder / _BEST)

    def take_best(self) -> bool:
        """Put the kept weights into the model; False if they are those that training began with."""
        kept = self.course.validated[self.course.kept]
        if self.trainer.is_world_process_zero():
            write_line(Kept(kept_step=kept.step), self._output)
        if kept.step == 0:
            return False
        load_trained(self.trainer.accelerator.unwrap_model(self.trainer.model), self._best)
        return True

    def _restore(self, checkpoint: Path) -> None:
        history = json.loads((checkpoint / _HISTORY).read_text(encoding="utf-8"))
        for one in history:
            self.course.add(Validated.model_validate(one))
        if self.course.kept:
            shutil.copyfile(checkpoint / _BEST, self._best)

    def _tell(self, validated: Validated, state: TrainerState) -> None:
        write_line(validated, self._output)
        figures = {"validation_accuracy": validated.accuracy, "validation_tokens": validated.tokens}
        event = Event(step=validated.step, num_steps=state.max_steps, figures=figures)
        write_line(event, self._output)

    def _validate(self, state: TrainerState) -> None:
        processes, own = self.trainer.accelerator.num_processes, self.trainer.args.process_index
        problems = self._problems[own::processes]
        tokenizer: Any = self.trainer.processing_class
        prompts = [prompt_tokens(tokenizer, problem.prompt) for problem in problems]
        written = self.trainer.rollouts().complete(prompts, 1, 0.0, 1.0, self._max_new_tokens)
        answers = [only for (only,) in written]
        texts = [tokenizer.decode(tokens, skip_special_tokens=True) for tokens in answers]
        told = [
            (own + place * processes, is_right(text, problem, self._answers), len(tokens))
            for place, (text, problem, tokens) in enumerate(
                zip(texts, problems, answers, strict=True)
            )
        ]
        everyone = sorted(gather_object(told))
        validated = Validated(
            step=state.global_step,
            correct=[right for _, right, _ in everyone],
            num_tokens=[length for _, _, length in everyone],
        )
        is_kept = self.course.add(validated)
        is_main = self.trainer.is_world_process_zero()
        if is_main:
            self._tell(validated, state)
        if is_kept and state.global_step:
            student = self.trainer.accelerator.unwrap_model(self.trainer.model)
            save_trained(student, self._best, is_main)
