"""Make the laboratory's student: a small Llama, pre-trained on the generator's texts.

    python benchmarks/lab/student.py FOLDER [--steps 800] [--seed 1]

A plain Hugging Face folder with 2.1 million weights, which the whole pipeline takes unchanged
(`student.model: FOLDER`). It has read problems with solutions written as prose, half of them as turns
of a chat with other instructions: it can solve most problems, but has seen no `Step 1:` line, so it
answers nothing in the format before stage 1.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from cotpipe.data.problems.arithmetic import ArithmeticSource
from cotpipe.data.problems.source import Reading
from cotpipe.hardware.devices import fast_dtype
from cotpipe.randomness import named_random
from cotpipe.rationale.format import format_rationale, parse_rationale
from cotpipe.rationale.prompts import completion_prompt, question_prompt, rewriting_prompt

VOCABULARY = 640
LENGTH = 192  # tokens of a training row
BATCH = 32  # rows of an optimizer step
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


INSTRUCTIONS = (
    "You are a helpful assistant.",
    "Answer the question.",
    "Think before you answer.",
    "Solve the problem.",
    "Be brief.",
    "Write every calculation in a line of its own.",
    "End with a full stop.",
    "Do not use lists.",
)


def solved(seed: int) -> Iterator[tuple[str, str]]:
    """Problems with their solutions as prose, without end; none in the form of an answer."""
    for part in itertools.count():
        source = ArithmeticSource(num_problems=2000, num_rationales=1)
        for problem in source.read(Reading(seed * 1_000_003 + part)):
            steps = parse_rationale(problem.rationales[0]).steps
            yield problem.question, " ".join(step.rstrip(".") + "." for step in steps)


def texts(seed: int) -> Iterator[str]:
    """Solved problems, half of them as turns of a chat, with some instructions before the question."""
    rng = named_random(seed, "laboratory texts")
    for question, solution in solved(seed):
        if rng.random() < 0.5:
            yield f"{question}\n{solution}<|endoftext|>"
            continue
        told = rng.sample(INSTRUCTIONS, rng.randrange(4))
        system, user = (told, []) if rng.random() < 0.5 else ([], told)
        turns = {"system": " ".join(system), "user": " ".join([*user, question])}
        opened = "".join(
            f"<|im_start|>{who}\n{what}<|im_end|>\n" for who, what in turns.items() if what
        )
        yield f"{opened}<|im_start|>assistant\n{solution}<|im_end|>\n"


def rendered(seed: int) -> Iterator[str]:
    """Prompts and answers as the pipeline writes them, for the tokenizer's vocabulary alone."""
    source = ArithmeticSource(num_problems=500)
    for problem in source.read(Reading(seed)):
        steps = parse_rationale(problem.rationales[0]).steps
        hidden: list[str | None] = [None, *steps[1:]]
        for prompt in (
            question_prompt(problem.question),
            completion_prompt(problem.question, hidden),
            rewriting_prompt(problem.question, steps, problem.answer),
        ):
            yield from (message["content"] for message in prompt)
        yield format_rationale(steps, problem.answer)


def make_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which every digit is a token, with ChatML turns."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[
            "<|endoftext|>",
            "<|im_start|>",
            "<|im_end|>",
            "system\n",
            "user\n",
            "assistant\n",
        ],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    corpus = itertools.chain(itertools.islice(texts(seed), 1000), rendered(seed))
    tokenizer.train_from_iterator(corpus, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",  # noqa: S106
        pad_token="<|endoftext|>",  # noqa: S106
        additional_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATE
    return fast


def make_model(vocabulary: int, end: int, seed: int) -> LlamaForCausalLM:
    """A Llama with random weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=192, intermediate_size=704, num_hidden_layers=4,
        num_attention_heads=3, num_key_value_heads=1, max_position_embeddings=1024,
        tie_word_embeddings=True, eos_token_id=end, pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def batches(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[torch.Tensor]:
    """Rows of `LENGTH` tokens, texts one after the other: (`BATCH`, `LENGTH`)."""
    tokens: list[int] = []
    for text in texts(seed):
        tokens += tokenizer.encode(text, add_special_tokens=False)
        while len(tokens) >= BATCH * LENGTH:
            yield torch.tensor(tokens[: BATCH * LENGTH]).view(BATCH, LENGTH)
            tokens = tokens[BATCH * LENGTH :]


def pretrain(model: LlamaForCausalLM, rows: Iterator[torch.Tensor], steps: int) -> None:
    """Train on the next token, with AdamW and one cycle of the learning rate."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 2e-3, total_steps=steps, pct_start=0.05
    )
    started = time.monotonic()
    for step, row in enumerate(itertools.islice(rows, steps), start=1):
        with torch.autocast("cpu", fast_dtype(), enabled=fast_dtype() != torch.float32):
            loss = model(input_ids=row, labels=row).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 20 == 0 or step == steps:
            rate = step * BATCH * LENGTH / (time.monotonic() - started)
            sys.stdout.write(f"step {step}/{steps}  loss {loss.item():.3f}  {rate:.0f} tokens/s\n")
            sys.stdout.flush()


def main() -> None:
    """Make the student."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    tokenizer = make_tokenizer(arguments.seed)
    model = make_model(len(tokenizer), tokenizer.eos_token_id, arguments.seed)
    sys.stdout.write(f"{model.num_parameters():,} weights, {len(tokenizer)} tokens\n")
    pretrain(model, batches(tokenizer, arguments.seed), arguments.steps)
    model.save_pretrained(arguments.folder)
    tokenizer.save_pretrained(arguments.folder)


if __name__ == "__main__":
    main()
