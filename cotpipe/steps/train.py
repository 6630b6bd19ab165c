"""The training step of a stage: from its examples and initial checkpoint to its own checkpoint."""

import logging
import shutil
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq

from cotpipe.data.rows import Example, Logged, Rollout, ValidatedAnswer, write_rows
from cotpipe.errors import RunError, TransientError, UserError
from cotpipe.progress import Progress
from cotpipe.randomness import named_seed
from cotpipe.recipe.stages import Stage
from cotpipe.recipe.trainers import Grpo
from cotpipe.steps.examples import bare_example
from cotpipe.steps.lessons import read_lessons
from cotpipe.steps.step import Step, Work
from cotpipe.training.endings import KilledError
from cotpipe.training.job import Job
from cotpipe.training.launch import Trained, train
from cotpipe.training.messages import Event, Rows, SavedTrainingState
from cotpipe.training.processes import require_even_shares

logger = logging.getLogger(__name__)


def step(stage: Stage, start: str) -> Step:
    """The step that trains a stage from the checkpoint `start`."""
    return Step(
        kind=stage.name,
        version=7,
        inputs=(start, f"{stage.name}-examples", *(["lessons"] if stage.validates else [])),
        fields=lambda recipe: recipe.fields("seed", stage.name, "problems.answers"),
        run=partial(train_stage, stage=stage, start=start),
        verb="train",
        gpus=lambda recipe, settings: settings.num_processes,
        shows="model",
    )


def train_stage(work: Work, stage: Stage, start: str) -> dict[str, int]:
    """Write `model/` and `training_log.parquet`; with validation, `validations.parquet`.

    A GRPO stage also writes `rollouts.parquet`.

    With too few examples for one optimizer step, before or after those that are too long are
    dropped, the initial checkpoint is copied and the number of optimizer steps is 0: without
    persistent failures there is nothing to train on, and a night goes on.
    """
    trainer, processes = stage.trainer, work.settings.num_processes
    require_even_shares(stage, processes)
    examples = work.input(f"{stage.name}-examples", "examples.parquet")
    num_examples = pq.read_metadata(examples).num_rows
    if num_examples < trainer.examples_per_step:
        return _skip(work, stage, start, Rows(rows_kept=0, rows_left_over=num_examples))
    problems = _validation_problems(work, stage) if stage.validates else []
    trained, micro_batch = _train_in_memory(work, stage, start, problems)
    if not trained.rows.rows_kept:
        return _skip(work, stage, start, trained.rows)
    counts = {
        "optimizer_steps": trained.events[-1].step,
        "micro_batch": micro_batch,
        "processes": processes,
    }
    if trained.kept:
        counts |= _write_validations(work, stage, start, problems, trained)
    counts |= _tokens(trained)
    if isinstance(trainer, Grpo):
        counts["rollouts"] = pq.read_metadata(work.output / "rollouts.parquet").num_rows
    return counts | trained.rows.model_dump() | _write_log(work.output, trained.events)


def _tokens(trained: Trained) -> dict[str, int]:
    """The tokens that went through the trained model, those sampled for it, and those of validation.

    Trained are prompts and targets or completions of all optimizer steps, the prompt of a GRPO group
    once, and groups that are paid alike only where the loss needs them; sampled are the completions
    of all groups, also of those that were replaced.
    """
    trained_on, sampled = (
        sum(int(event.figures.get(name, 0)) for event in trained.events)
        for name in ("trained_tokens", "sampled_tokens")
    )
    validated = sum(sum(one.num_tokens) for one in trained.validated)
    return {
        "trained_tokens": trained_on,
        "sampled_tokens": sampled,
        "validated_tokens": validated,
    }


def _validation_problems(work: Work, stage: Stage) -> list[Example]:
    """The bare questions of the validation split, at most as many as the recipe says.

    Raises `UserError` if there are none.
    """
    lessons = read_lessons(work.input("lessons", "lessons.parquet"), "validation")
    chosen = list(islice(lessons, stage.trainer.validation.max_problems))
    if not chosen:
        raise UserError(
            f"{stage.name}.trainer.keep: the validation split is empty, so no state can be called the "
            f"best; raise problems.splits.validation, or set {stage.name}.trainer.keep=last"
        )
    return [bare_example(lesson, work.recipe.instruction) for lesson in chosen]


def _write_validations(
    work: Work, stage: Stage, start: str, problems: list[Example], trained: Trained
) -> dict[str, int]:
    """Write what was validated; hand on the initial checkpoint if none of the states was better."""
    assert trained.kept
    kept = trained.kept.kept_step
    rows = [
        ValidatedAnswer(one.step, one.step == kept, problem.problem_id, correct, num_tokens)
        for one in trained.validated
        for problem, correct, num_tokens in zip(problems, one.correct, one.num_tokens, strict=True)
    ]
    write_rows(work.output / "validations.parquet", ValidatedAnswer, rows)
    if not kept:
        logger.warning(
            "%s: by %d validation problems, no state of the training is better than the "
            "checkpoint it started from (%s) beyond a standard error, which is handed on",
            stage.name, len(problems), start,
        )  # fmt: skip
        shutil.copytree(work.input(start, "model"), work.output / "model")
    return {"kept_step": kept, "validation_problems": len(problems)}


def _skip(work: Work, stage: Stage, start: str, rows: Rows) -> dict[str, int]:
    """Pass on the initial checkpoint, and say what was dropped and what to change."""
    trainer, dropped, longer = stage.trainer, "", ""
    if rows.rows_dropped:
        dropped = (
            f" ({rows.rows_dropped} that are too long were dropped, the longest has "
            f"{rows.longest_row} tokens)"
        )
        longer = f"raise {stage.name}.trainer.{trainer.length_field}, "
    logger.warning(
        "%s: %d examples%s are too few for one optimizer step (%d); skipping training; "
        "%slower %s.trainer.%s, or give it more problems",
        stage.name, rows.rows_left_over, dropped, trainer.examples_per_step,
        longer, stage.name, trainer.per_step_field,
    )  # fmt: skip
    shutil.copytree(work.input(start, "model"), work.output / "model")
    if stage.validates:
        write_rows(work.output / "validations.parquet", ValidatedAnswer, [])
    if isinstance(trainer, Grpo):
        write_rows(work.output / "rollouts.parquet", Rollout, [])
    return {"optimizer_steps": 0} | rows.model_dump() | _write_log(work.output, [])


def _train_in_memory(
    work: Work, stage: Stage, start: str, problems: list[Example]
) -> tuple[Trained, int]:
    """Train, halving the micro-batch whenever memory runs out.

    The kernel of a CPU or container kills where memory runs out, and others may kill, too: the
    first time, training goes on as before; when it then gets no further, memory is the reason.
    The rows of an optimizer step stay the same; its sums round differently.
    """
    micro_batch, reached = stage.trainer.micro_batch, -1
    progress = _Furthest(work.progress)
    while True:
        try:
            stage_now = stage.model_copy(
                update={"trainer": stage.trainer.model_copy(update={"micro_batch": micro_batch})}
            )
            return _train(work, stage_now, start, problems, progress), micro_batch
        except (KilledError, MemoryError) as error:
            is_killed = isinstance(error, KilledError)
            if is_killed and progress.step > reached:
                reached = progress.step
                logger.warning("%s; going on from its last training state", error)
                continue
            if micro_batch % 2:
                raise (TransientError if is_killed else RunError)(
                    f"{stage.name}: out of memory with {micro_batch} rows per forward pass "
                    f"({error}); turn on {stage.name}.trainer.gradient_checkpointing, train adapters "
                    f"({stage.name}.trainer.lora), or lower the maximum lengths"
                ) from error
            micro_batch //= 2
            logger.warning(
                "%s: out of memory (%s); resuming with micro_batch %d",
                stage.name, error, micro_batch,
            )  # fmt: skip


class _Furthest:
    """Reports optimizer steps with the last value of each metric, and keeps the furthest step of all attempts."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self.step = progress, 0
        self._figures: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        self.step = max(self.step, event.step)
        self._figures |= event.figures
        self._progress(event.step, event.num_steps, dict(self._figures))


def _train(
    work: Work,
    stage: Stage,
    start: str,
    problems: list[Example],
    on_event: Callable[[Event], None],
) -> Trained:
    scratch = (
        work.output / ".scratch"
    )  # on the disk of the store: training states are moved, not copied
    resume = scratch / "resume"
    validation = scratch / "validation.parquet" if problems else None
    if validation:
        scratch.mkdir(parents=True, exist_ok=True)
        write_rows(validation, Example, problems)
    job = Job(
        stage=stage,
        answers=work.recipe.problems.answers.kind,
        student=work.input(start, "model"),
        examples=work.input(f"{stage.name}-examples", "examples.parquet"),
        validation=validation,
        output=work.output / "model",
        work=scratch,
        seed=named_seed(work.recipe.seed, stage.name) % 2**31,
        resume=resume if work.training_states.fetch_latest(resume) else None,
        precision=work.settings.precision,
        parallel=work.settings.parallel,
        trackers=work.settings.trackers,
        tracked_as=f"{work.recipe.name}.{stage.name}.{work.reference.fingerprint[:8]}",
        training_state_seconds=work.settings.training_state_seconds,
    )
    try:
        return train(
            job,
            work.settings.num_processes,
            on_event=on_event,
            on_training_state=partial(_keep_training_state, work),
            on_line=work.progress.log,
        )
    finally:
        shutil.rmtree(scratch)


def _keep_training_state(work: Work, saved: SavedTrainingState) -> None:
    """Store a training state; where that fails, training goes on, and the next one is tried."""
    try:
        work.training_states.save(saved.step, saved.folder)
    except (RunError, OSError) as error:
        logger.warning(
            "the training state of step %d is not stored, the next one is tried again: %s",
            saved.step, error,
        )  # fmt: skip
        shutil.rmtree(saved.folder, ignore_errors=True)


def _write_log(folder: Path, events: list[Event]) -> dict[str, int]:
    """Write the metrics of a training process in long form: step, name, value."""
    rows = [
        Logged(event.step, name, value) for event in events for name, value in event.figures.items()
    ]
    return {"logged_figures": write_rows(folder / "training_log.parquet", Logged, rows)}
