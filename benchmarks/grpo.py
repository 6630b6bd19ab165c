"""An optimizer step of GRPO: TRL's trainer with its defaults, and ours, on the same prompts.

    python benchmarks/grpo.py STUDENT [--rounds 2] [--steps 2] [--micro-batch 8]

STUDENT is a directory with a causal language model. A step takes 8 prompts of about 100 tokens with
8 completions of 96 tokens each, all weights trained with AdamW; `--micro-batch` is TRL's, ours is 8. Every trainer
runs in a process of its own, in turns. Ratios are computed
within a round, of wall seconds and of processor seconds: other work on the machine disturbs the
latter less.
"""

import argparse
import json
import random
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.beside import NAMES, measure, rounds_of, told

_PROMPTS, _GROUP, _NEW_TOKENS, _PROMPT_TOKENS = 8, 8, 96, 100


def prompts(tokenizer: Any) -> list[str]:
    """Word problems that are cut to equal length."""
    rng = random.Random(1)
    found = []
    for _ in range(_PROMPTS):
        parts = [f"Then {rng.randint(2, 99)} come and {rng.randint(2, 9)} go." for _ in range(30)]
        text = f"There are {rng.randint(2, 99)} birds. {' '.join(parts)}"
        found.append(tokenizer.decode(tokenizer(text)["input_ids"][:_PROMPT_TOKENS]))
    return found


def reward(completion_ids: Sequence[list[int]], **_: Any) -> list[float]:
    """Differs within every group, so that no row is skipped; all completions are whole."""
    assert {len(ids) for ids in completion_ids} == {_NEW_TOKENS}, "a completion ended early"
    return [float(sum(ids) % 97) for ids in completion_ids]


def trainer_of(name: str, student: str, num_steps: int, micro_batch: int) -> Any:
    """TRL's trainer ("trl") or ours ("cotpipe"), ready to train."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    from cotpipe.hardware.devices import fast_dtype, training_attention
    from cotpipe.training.cpu import project_in_small_tiles, score_targets_only
    from cotpipe.training.group_trainer import GroupTrainer

    ours: dict[str, Any] = {"gradient_checkpointing": False, "bf16": fast_dtype() == torch.bfloat16}
    attention = {"attn_implementation": training_attention()} if name == "cotpipe" else {}
    if name == "cotpipe":
        score_targets_only()
        project_in_small_tiles()
    tokenizer = AutoTokenizer.from_pretrained(student, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32, **attention)
    # No completion ends before its last token: the end token is one that is never written.
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(len(tokenizer) - 1)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    kind = GroupTrainer if name == "cotpipe" else GRPOTrainer
    return kind(
        model=model,
        reward_funcs=reward,
        args=GRPOConfig(
            output_dir="unused", use_cpu=not torch.cuda.is_available(), report_to=[], max_steps=num_steps,
            logging_steps=1,
            save_strategy="no", disable_tqdm=True, num_generations=_GROUP, max_completion_length=_NEW_TOKENS,
            per_device_train_batch_size=micro_batch, gradient_accumulation_steps=_PROMPTS * _GROUP // micro_batch,
            **(ours if name == "cotpipe" else {}),
        ),
        train_dataset=Dataset.from_list([{"prompt": text} for text in prompts(tokenizer)]),
        processing_class=tokenizer,
    )  # fmt: skip


def main() -> None:
    """Measure in turns, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("student")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--micro-batch", type=int, default=_GROUP)
    parser.add_argument("--only", choices=NAMES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        trainer = trainer_of(
            arguments.only, arguments.student, arguments.steps, arguments.micro_batch
        )
        sys.stdout.write(json.dumps(measure(trainer, arguments.steps)) + "\n")
        return
    rounds = rounds_of(
        __file__,
        [arguments.student, "--steps", str(arguments.steps)],
        {"trl": ["--micro-batch", str(arguments.micro_batch)]},
        arguments.rounds,
    )
    result = told(rounds)
    completions = _PROMPTS * _GROUP
    result["completions_per_second"] = {
        name: round(statistics.median(completions / one[name]["seconds"] for one in rounds), 2)
        for name in NAMES
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
