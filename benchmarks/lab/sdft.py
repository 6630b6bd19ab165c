"""Stage 3 by self-distillation: the student that sees the teacher's steps teaches the one that does not.

    python benchmarks/lab/sdft.py STORE RUN OUT [--epochs 2] [--learning-rate 4e-5] [--teacher base]

On-policy self-distillation with privileged context (arXiv 2601.18734) by TRL's experimental
`SDFTTrainer`: completions are sampled to the bare question, and every token of them is drawn towards
what the same student predicts where the teacher's whole rationale stands in its prompt. It starts
from the stage 2 of RUN, a run of the laboratory in STORE, and takes the problems of its stage 3.
Writes the checkpoint to OUT, to be judged beside the others by
`cotpipe evaluate OUT --recipe benchmarks/lab/recipe.yaml`.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.experimental.sdft import SDFTConfig, SDFTTrainer

from cotpipe.hardware.devices import fast_dtype, training_attention
from cotpipe.rationale.prompts import hinted_prompt, question_prompt
from cotpipe.runs.log import find_run
from cotpipe.settings import Settings
from cotpipe.steps.lessons import read_lessons
from cotpipe.store.artifacts import Store, open_store

_PROMPTS, _GROUP, _NEW_TOKENS = 16, 8, 96  # as in the laboratory's stage 3


def of_run(store: Store, named: str) -> dict[str, Path]:
    """The checkpoint of stage 2 and the table of lessons of a run."""
    found = find_run(store.storage, named).references
    return {
        "student": store.path(store.require(found["stage2"]), "model"),
        "lessons": store.path(store.require(found["lessons"]), "lessons.parquet"),
    }


def rows_of(lessons: Path) -> list[dict[str, Any]]:
    """The problems of stage 3: the bare question, and what the prompt with all the steps adds to it."""
    rows = []
    for lesson in read_lessons(lessons, "mining"):
        if not lesson.teacher_steps:
            continue
        bare = question_prompt(lesson.question)
        shown = hinted_prompt(lesson.question, lesson.teacher_steps, len(lesson.teacher_steps))
        *_, (asked, helped) = zip(bare, shown, strict=True)
        help_alone = helped["content"].removeprefix(asked["content"])
        assert help_alone != helped["content"]
        rows.append({"prompt": bare, "privileged_context": help_alone})
    return rows[: len(rows) // _PROMPTS * _PROMPTS]


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("run")
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=4e-5)
    parser.add_argument("--teacher", choices=["base", "live", "ema"], default="base")
    arguments = parser.parse_args()
    found = of_run(open_store(Settings(store=arguments.store)), arguments.run)
    tokenizer = AutoTokenizer.from_pretrained(found["student"], padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(
        found["student"], dtype=torch.float32, attn_implementation=training_attention()
    )
    trainer = SDFTTrainer(
        model=model,
        args=SDFTConfig(
            output_dir=str(arguments.out), use_cpu=not torch.cuda.is_available(), report_to=[],
            save_strategy="no", disable_tqdm=True, logging_steps=4,
            bf16=fast_dtype() == torch.bfloat16, gradient_checkpointing=False,
            per_device_train_batch_size=64, gradient_accumulation_steps=_PROMPTS * _GROUP // 64,
            num_generations=_GROUP, max_completion_length=_NEW_TOKENS, temperature=0.7,
            learning_rate=arguments.learning_rate, lr_scheduler_type="constant", warmup_steps=3,
            num_train_epochs=arguments.epochs, teacher_model_kind=arguments.teacher,
            teacher_prompt_template="{prompt}{privileged_context}", distillation_mode="full_logits",
        ),
        train_dataset=Dataset.from_list(rows_of(found["lessons"])),
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.train()
    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
