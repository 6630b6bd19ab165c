"""The evaluation of any model on a recipe's held-out problems, outside of a run.

It asks what the evaluation step of a run asks, so both share the answers (shards of `generations`).
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from cotpipe.data.problems.stored import PROBLEMS
from cotpipe.data.rows import Answered, write_rows
from cotpipe.engines.base import Sampling
from cotpipe.engines.served import Served
from cotpipe.randomness import named_seed
from cotpipe.recipe.model import Recipe
from cotpipe.settings import Settings
from cotpipe.steps.ask import Asked, ask, gpus_to_ask
from cotpipe.steps.evaluate import greedy
from cotpipe.steps.held_out import held_out_lessons
from cotpipe.steps.step import Step, Work
from cotpipe.store.records import Reference

KIND = "evaluation"
GREEDY = "evaluations.parquet"
SAMPLED = "completions.parquet"
_SAMPLES_AT_ONCE = 8
"""Samples per round, each with a seed of its own: with more samples, earlier rounds are reused."""


@dataclass(frozen=True)
class Samples:
    """How a model is sampled, besides its greedy answers. No token is left out: `top_p` is 1."""

    number: int
    temperature: float


def step(model: Reference | Served, samples: Samples | None = None) -> Step:
    """The step in which a model answers the held-out questions: greedily, or with samples.

    Its inputs are `problems`, and the artifact with the model, unless a server has it.
    """
    served = isinstance(model, Served)

    def fields(recipe: Recipe) -> dict[str, Any]:
        found = recipe.fields("evaluation", "problems.answers", "problems.splits")
        if isinstance(model, Served):
            found |= model.identity()
        if samples:
            found |= recipe.fields("seed") | {"samples": asdict(samples)}
        return found

    def gpus(recipe: Recipe, settings: Settings) -> int:
        return 0 if served else gpus_to_ask(recipe, settings)

    return Step(
        kind=KIND,
        version=1,
        inputs=("problems",) if isinstance(model, Served) else ("problems", model.kind),
        fields=fields,
        run=partial(evaluate, model=model, samples=samples),
        verb="evaluate",
        gpus=gpus,
    )


def evaluate(work: Work, model: Reference | Served, samples: Samples | None) -> dict[str, int]:
    """Write the graded answers: `evaluations.parquet`, or `completions.parquet` with the samples."""
    lessons = held_out_lessons(work.input("problems", PROBLEMS), work.recipe)
    checkpoint = model if isinstance(model, Served) else model.kind
    rounds = list(_rounds(work.recipe, samples)) if samples else [greedy(work.recipe)]
    asked: list[Asked] = []
    answered: list[Answered] = []
    for number, sampling in enumerate(rounds):
        asked.append(ask(work, checkpoint, lessons, sampling))
        first = number * _SAMPLES_AT_ONCE
        answered += [replace(row, sample=first + row.sample) for row in asked[-1].answered]
    answered.sort(key=lambda row: (row.problem_id, row.sample))
    write_rows(work.output / (SAMPLED if samples else GREEDY), Answered, answered)
    too_long = asked[0].too_long
    return {
        "problems": len(lessons),
        "answers": len(answered),
        "correct": sum(row.correct for row in answered),
    } | ({"prompts_too_long": len(too_long)} if too_long else {})


def _rounds(recipe: Recipe, samples: Samples) -> Iterator[Sampling]:
    for start in range(0, samples.number, _SAMPLES_AT_ONCE):
        yield Sampling(
            num_samples=min(_SAMPLES_AT_ONCE, samples.number - start),
            temperature=samples.temperature,
            max_new_tokens=recipe.evaluation.max_new_tokens,
            seed=named_seed(recipe.seed, "evaluation", start),
        )
