"""Tokens per second of the `transformers` engine, relative to `generate` in fixed batches of 32.

    python benchmarks/generation.py MODEL [--problems 100] [--rounds 3] [--samples 1]

MODEL is a directory. Each round answers the same questions with both, greedily for one sample, at a
temperature of 0.7 for several. Also prints how many greedy texts are equal, and the share of the
floor that this machine's matrix products set: every weight once per token of prompts and answers.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cotpipe.data.problems.arithmetic import ArithmeticSource
from cotpipe.data.problems.source import Reading
from cotpipe.engines.base import Model, Request, Sampling
from cotpipe.engines.transformers_engine import TransformersEngine
from cotpipe.hardware.devices import fast_dtype
from cotpipe.progress import Silent
from cotpipe.rationale.prompts import question_prompt
from cotpipe.settings import Settings

Result = TypeVar("Result")

_BATCH = 32
_NEW_TOKENS = 96
_SIZE = 2048  # of the matrices whose product is timed


class Fixed:
    """transformers' `generate`, 32 prompts at a time."""

    def __init__(self, model: str) -> None:
        self._tokenizer: Any = AutoTokenizer.from_pretrained(model, padding_side="left")
        self._model: Any = AutoModelForCausalLM.from_pretrained(model, dtype=fast_dtype()).eval()
        self.num_weights: int = self._model.num_parameters()

    def prompt_tokens(self, asked: list[Request]) -> list[list[int]]:
        """The tokens of each prompt."""
        return [
            self._tokenizer.apply_chat_template(
                one.prompt, add_generation_prompt=True, return_dict=True
            )["input_ids"]
            for one in asked
        ]

    def generate(self, asked: list[Request], sampling: Sampling) -> list[list[int]]:
        """The tokens of all answers up to the end token."""
        prompts = [one for one in self.prompt_tokens(asked) for _ in range(sampling.num_samples)]
        how = {"do_sample": True, "temperature": 0.7} if sampling.temperature else {}
        written = []
        for start in range(0, len(prompts), _BATCH):
            rows = self._tokenizer.pad(
                {"input_ids": prompts[start : start + _BATCH]}, return_tensors="pt"
            )
            output = self._model.generate(
                **rows, max_new_tokens=_NEW_TOKENS, **(how or {"do_sample": False})
            )
            ends = {self._tokenizer.eos_token_id}
            for tokens in output[:, rows["input_ids"].shape[1] :].tolist():
                end = next((n for n, one in enumerate(tokens, 1) if one in ends), len(tokens))
                written.append(tokens[:end])
        return written

    def texts(self, written: list[list[int]]) -> list[str]:
        """Answers as text."""
        return [self._tokenizer.decode(one, skip_special_tokens=True) for one in written]


def products_per_second() -> float:
    """Multiplications and additions per second in a large product of the fast dtype."""
    one = torch.randn(_SIZE, _SIZE).to(fast_dtype())
    best = min(_seconds(lambda: one @ one)[1] for _ in range(5))
    return 2 * _SIZE**3 / best


def _seconds(call: Callable[[], Result]) -> tuple[Result, float]:
    started = time.perf_counter()
    return call(), time.perf_counter() - started


def main() -> None:
    """Measure, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=1)
    arguments = parser.parse_args()
    source = ArithmeticSource(num_problems=arguments.problems)
    asked = [
        Request(str(n), question_prompt(one.question))
        for n, one in enumerate(source.read(Reading(7)))
    ]
    samples = arguments.samples
    sampling = Sampling(samples, 0.7 if samples > 1 else 0.0, _NEW_TOKENS, 0)
    fixed = Fixed(arguments.model)
    engine = TransformersEngine(Model(arguments.model), Settings().engine_batch)
    engine.generate(asked[:8], sampling, Silent())
    speeds: dict[str, list[float]] = {"generate": [], "engine": []}
    shares = []
    equal = 0
    for _ in range(arguments.rounds):
        theirs, seconds = _seconds(lambda: fixed.generate(asked, sampling))
        speeds["generate"].append(sum(map(len, theirs)) / seconds)
        ours, seconds = _seconds(lambda: engine.generate(asked, sampling, Silent()))
        answers = [one for row in ours for one in row]
        num_tokens = sum(one.num_tokens for one in answers)
        speeds["engine"].append(num_tokens / seconds)
        read = num_tokens + sum(map(len, fixed.prompt_tokens(asked)))
        shares.append(2 * fixed.num_weights * read / products_per_second() / seconds)
        equal = sum(
            one.text == text for one, text in zip(answers, fixed.texts(theirs), strict=True)
        )
        sys.stderr.write(f"{speeds['generate'][-1]:.0f}, {speeds['engine'][-1]:.0f} tokens/s\n")
    ratios = [ours / theirs for theirs, ours in zip(*speeds.values(), strict=True)]
    found = {
        "tokens_per_second": {name: [round(one) for one in all_] for name, all_ in speeds.items()},
        "ratio": round(statistics.median(ratios), 2),
        "share_of_floor": round(statistics.median(shares), 2),
        "equal_texts": f"{equal} of {len(asked) * samples}",
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
