"""An optimizer step of GRPO: TRL's trainer with its defaults, and ours, on the same prompts.

    python benchmarks/grpo.py STUDENT [--rounds 2] [--steps 2] [--prompts 8] [--new-tokens 96]
                              [--micro-batch 8] [--vllm]

STUDENT is a directory with a causal language model. A step takes 8 prompts of about 100 tokens with
8 completions of 96 tokens each, all weights trained with AdamW; `--micro-batch` is TRL's, ours is 8. With
`--vllm`, TRL's completions are written by a vLLM in its process, which sleeps while it trains. Every
trainer runs in a process of its own, in turns. Ratios are computed
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

GROUP, PROMPT_TOKENS = 8, 100


def prompts(tokenizer: Any, count: int) -> list[str]:
    """Word problems that are cut to equal length."""
    rng = random.Random(1)
    found = []
    for _ in range(count):
        parts = [f"Then {rng.randint(2, 99)} come and {rng.randint(2, 9)} go." for _ in range(30)]
        text = f"There are {rng.randint(2, 99)} birds. {' '.join(parts)}"
        found.append(tokenizer.decode(tokenizer(text)["input_ids"][:PROMPT_TOKENS]))
    return found


def reward(completion_ids: Sequence[list[int]], **_: Any) -> list[float]:
    """Differs within every group, so that no row is skipped; all completions are whole."""
    assert len({len(ids) for ids in completion_ids}) == 1, "a completion ended early"
    return [float(sum(ids) % 97) for ids in completion_ids]


def trainer_of(name: str, chosen: argparse.Namespace) -> Any:
    """TRL's trainer ("trl") or ours ("cotpipe"), ready to train as the arguments say."""
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
    tokenizer = AutoTokenizer.from_pretrained(chosen.student, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(chosen.student, dtype=torch.float32, **attention)
    # No completion ends before its last token: the end token is one that the model does not know.
    tokenizer.add_special_tokens({"eos_token": "<|never|>"})
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    kind = GroupTrainer if name == "cotpipe" else GRPOTrainer
    vllm: dict[str, Any] = {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_enable_sleep_mode": True,
        "vllm_max_model_length": PROMPT_TOKENS + chosen.new_tokens + 16,
        "generation_kwargs": {"ignore_eos": True},
    }
    return kind(
        model=model,
        reward_funcs=reward,
        args=GRPOConfig(
            output_dir="unused", use_cpu=not torch.cuda.is_available(), report_to=[], max_steps=chosen.steps,
            logging_steps=1,
            save_strategy="no", disable_tqdm=True, num_generations=GROUP,
            max_completion_length=chosen.new_tokens, per_device_train_batch_size=chosen.micro_batch,
            gradient_accumulation_steps=chosen.prompts * GROUP // chosen.micro_batch,
            **(ours if name == "cotpipe" else vllm if chosen.vllm else {}),
        ),
        train_dataset=Dataset.from_list([{"prompt": text} for text in prompts(tokenizer, chosen.prompts)]),
        processing_class=tokenizer,
    )  # fmt: skip


def main() -> None:
    """Measure in turns, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("student")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=96)
    parser.add_argument("--micro-batch", type=int, default=GROUP)
    parser.add_argument("--vllm", action="store_true")
    parser.add_argument("--only", choices=NAMES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        found = measure(trainer_of(arguments.only, arguments), arguments.steps)
        sys.stdout.write(json.dumps(found) + "\n")
        return
    same = {name: str(vars(arguments)[name]) for name in ("steps", "prompts", "new_tokens")}
    rounds = rounds_of(
        __file__,
        [
            arguments.student,
            *(
                part
                for name, value in same.items()
                for part in (f"--{name.replace('_', '-')}", value)
            ),
        ],
        {"trl": ["--micro-batch", str(arguments.micro_batch), *["--vllm"] * arguments.vllm]},
        arguments.rounds,
    )
    result = told(rounds)
    completions = arguments.prompts * GROUP
    result["completions_per_second"] = {
        name: round(statistics.median(completions / one[name]["seconds"] for one in rounds), 2)
        for name in NAMES
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
