"""A stage of reinforcement (GRPO): from its examples to the checkpoint that is handed on."""

from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl import GRPOConfig

from cotpipe.data.rows import Example, read_rows
from cotpipe.recipe.trainers import Grpo
from cotpipe.training.arguments import shared_arguments
from cotpipe.training.data import grpo_row, usable_rows
from cotpipe.training.job import Job
from cotpipe.training.keeping import KeepBest
from cotpipe.training.messages import Rows
from cotpipe.training.pool import PromptPool
from cotpipe.training.processes import require_even_shares, world_size
from cotpipe.training.progress import ReportProgress, write_line
from cotpipe.training.recording import RecordRollouts
from cotpipe.training.resume import SaveTrainingState
from cotpipe.training.sampling import PoolTrainer
from cotpipe.training.scoring import Scorer
from cotpipe.training.student import lora_config, open_student, save_student
from cotpipe.training.validation import Course


def train_grpo(job: Job, trainer: Grpo) -> None:
    """Train on the prompts with the stage's reward, and save the checkpoint and all rollouts.

    There are none with too few rows for one optimizer step, and no checkpoint if
    validation keeps the initial one.
    """
    require_even_shares(job.stage, world_size())
    model, tokenizer = open_student(job.student)
    examples = list(read_rows(job.examples, Example))
    pool, num_steps = _pool_of(job, trainer, examples, tokenizer)
    if not num_steps:
        return
    scorer = Scorer(job, trainer, tokenizer)
    ramp_end = job.stage.ramp_end(num_steps)
    course = Course(trainer.validation, trainer.reward.brevity, ramp_end=ramp_end)
    keeping = KeepBest(job, course, trainer.max_new_tokens) if job.validation else None
    recording = RecordRollouts(job)
    grpo = PoolTrainer(
        examples=examples,
        pool=pool,
        scorer=scorer,
        course=course,
        replacements=trainer.replacements,
        recording=recording,
        model=model,
        args=_config(job, trainer),
        # The pool chooses the prompts; these rows only count the optimizer steps.
        train_dataset=Dataset.from_list(
            [{"prompt": examples[0].prompt}] * (num_steps * trainer.prompts_per_step)
        ),
        processing_class=tokenizer,
        peft_config=lora_config(trainer.lora),
        callbacks=[
            ReportProgress(job.stage),
            *([keeping] if keeping else []),
            recording,
            SaveTrainingState(job.training_state_seconds),
        ],
    )
    if keeping:
        keeping.trainer = grpo
    grpo.train(resume_from_checkpoint=str(job.resume) if job.resume else None)
    if grpo.is_world_process_zero():
        recording.write(job.rollouts)
    if keeping is None or keeping.take_best():
        save_student(grpo, tokenizer, job.output)


def _pool_of(
    job: Job, trainer: Grpo, examples: list[Example], tokenizer: PreTrainedTokenizerBase
) -> tuple[PromptPool, int]:
    """The prompts that are not too long, and the number of optimizer steps."""
    rows = [grpo_row(example, index, tokenizer) for index, example in enumerate(examples)]
    per_step = trainer.prompts_per_step
    measured = job.stage.examples.pass_rates
    if measured is None:
        kept = [row["row"] for row in usable_rows(rows, trainer.max_prompt_length, per_step)]
        return PromptPool(examples, kept), len(kept) // per_step
    kept = [row["row"] for row in usable_rows(rows, trainer.max_prompt_length, 1)]
    pool = PromptPool(examples, kept, measured)
    if len(pool) < per_step:  # the rows are several to a problem
        longest = max((row["length"] for row in rows), default=0)
        dropped = len(rows) - len(kept)
        write_line(
            Rows(rows_kept=0, rows_dropped=dropped, rows_left_over=len(pool), longest_row=longest)
        )
        return pool, 0
    return pool, len(pool) * job.stage.examples.num_epochs // per_step


def _config(job: Job, trainer: Grpo) -> GRPOConfig:
    return GRPOConfig(
        **shared_arguments(job),
        lr_scheduler_type="constant_with_warmup",
        shuffle_dataset=False,
        num_generations=trainer.group_size,
        max_completion_length=trainer.max_new_tokens,
        temperature=trainer.temperature,
        top_p=trainer.top_p,
        beta=trainer.kl,
        epsilon=trainer.clip_range,
        epsilon_high=trainer.clip_range_high,
        loss_type=trainer.loss,
        mask_truncated_completions=trainer.mask_truncated,
        scale_rewards=trainer.scale_rewards,
    )
