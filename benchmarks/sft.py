"""Optimizer steps of SFT: TRL's trainer with its defaults, and ours, on the same rows.

    python benchmarks/sft.py STUDENT [--rounds 2] [--steps 12] [--batch 8]

STUDENT is a directory with a causal language model, of which all weights are trained with AdamW. A
row is a generated problem, half of its steps hidden, with its rationale as the target; `--batch` of
them make an optimizer step. Both trainers get the same tokens in the same order. Every trainer runs in a process
of its own, in turns. Ratios are computed within a round, of wall seconds and of processor seconds:
other work on the machine disturbs the latter less.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.beside import NAMES, measure, rounds_of, told


def rows_of(tokenizer: Any, num_rows: int, batch: int) -> list[dict[str, Any]]:
    """Rows as stage 1 makes them, sorted by length within each optimizer step."""
    from cotpipe.data.problems.arithmetic import ArithmeticSource
    from cotpipe.data.problems.source import Reading
    from cotpipe.randomness import named_random
    from cotpipe.rationale.format import format_rationale, parse_rationale
    from cotpipe.rationale.prompts import reconstruction_prompt
    from cotpipe.rationale.turns import target_tokens
    from cotpipe.training.data import sort_within_batches

    rng = named_random(1, "rows of the benchmark")
    rows = []
    for problem in ArithmeticSource(num_problems=num_rows, num_rationales=1).read(Reading(1)):
        steps = parse_rationale(problem.rationales[0]).steps
        hidden = set(rng.sample(range(len(steps)), len(steps) // 2))
        shown = [None if place in hidden else step for place, step in enumerate(steps)]
        rng.shuffle(shown)
        tokens, mask = target_tokens(
            tokenizer,
            reconstruction_prompt(problem.question, shown),
            format_rationale(steps, problem.answer),
        )
        rows.append({"input_ids": tokens, "completion_mask": mask, "length": len(tokens)})
    return sort_within_batches(rows, batch)


def trainer_of(name: str, student: str, num_steps: int, batch: int) -> tuple[Any, dict[str, float]]:
    """TRL's trainer ("trl") or ours ("cotpipe"), ready to train, and the size of its rows."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from cotpipe.hardware.devices import fast_dtype, training_attention
    from cotpipe.training.cpu import project_in_small_tiles, score_targets_only
    from cotpipe.training.sft import TargetTrainer

    is_ours = name == "cotpipe"
    if is_ours:
        score_targets_only()
        project_in_small_tiles()
    tokenizer = AutoTokenizer.from_pretrained(student)
    rows = rows_of(tokenizer, num_steps * batch, batch)
    steps = [rows[start : start + batch] for start in range(0, len(rows), batch)]
    tokens = [sum(row["length"] for row in step) for step in steps]
    attention = {"attn_implementation": training_attention()} if is_ours else {}
    ours: dict[str, Any] = {"gradient_checkpointing": False, "bf16": fast_dtype() == torch.bfloat16}
    arguments = SFTConfig(
        output_dir="unused", use_cpu=not torch.cuda.is_available(), report_to=[], save_strategy="no",
        disable_tqdm=True, num_train_epochs=1, per_device_train_batch_size=batch, logging_steps=1,
        train_sampling_strategy="sequential", completion_only_loss=True, learning_rate=1e-4,
        **(ours if is_ours else {}),
    )  # fmt: skip
    kind: Any = TargetTrainer if is_ours else SFTTrainer
    trainer = kind(
        model=AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32, **attention),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        **({"tokens": tokens} if is_ours else {}),
    )
    longest = max(row["length"] for row in rows)
    return trainer, {"tokens_per_step": sum(tokens) / num_steps, "longest_row": longest}


def main() -> None:
    """Measure in turns, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("student")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--only", choices=NAMES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        trainer, size = trainer_of(
            arguments.only, arguments.student, arguments.steps, arguments.batch
        )
        sys.stdout.write(json.dumps(measure(trainer, arguments.steps) | size) + "\n")
        return
    options = [arguments.student, "--steps", str(arguments.steps), "--batch", str(arguments.batch)]
    rounds = rounds_of(__file__, options, {}, arguments.rounds)
    losses = {
        name: round(statistics.median(one[name]["last_loss"] for one in rounds), 4)
        for name in NAMES
    }
    sys.stdout.write(json.dumps(told(rounds) | {"last_loss": losses}) + "\n")


if __name__ == "__main__":
    main()
