"""The results of a run that never was: arithmetic, four checkpoints, answers that changed."""

import random
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cotpipe.data.rows import Rollout, TeacherOutcome, ValidatedAnswer, write_rows
from cotpipe.recipe.model import Recipe
from cotpipe.report.costs import Cost
from cotpipe.report.run_page import RunResults
from cotpipe.report.training_curves import Training
from cotpipe.report.validations import read_choice
from cotpipe.store.records import Record

_RIGHT = {"base": 0.08, "stage1": 0.62, "stage2": 0.7, "stage3": 0.74}
_LONG = {"base": 150, "stage1": 64, "stage2": 52, "stage3": 47}
_OUTCOMES = [
    TeacherOutcome("verified", 1356, 0.904, 34.0, 46_687),
    TeacherOutcome("wrong answer", 96, 0.064, 41.0, 4_120),
    TeacherOutcome("too few steps", 48, 0.032, 12.0, 611),
]


def recipe_of_stages(*names: str) -> Recipe:
    """The published recipe with some of its stages."""
    stages = [stage for stage in Recipe().model_dump()["stages"] if stage["name"] in names]
    return Recipe.model_validate({"name": "page", "stages": stages})


def evaluated(checkpoint: str, num_problems: int, text: str = "", seed: int = 0) -> pd.DataFrame:
    """Evaluation rows; `text` stands in every question and answer."""
    rng = random.Random(f"{checkpoint} {seed}")
    rows = []
    for number in range(num_problems):
        first, second = 10 + number, 3 + number % 7
        correct = rng.random() < _RIGHT[checkpoint]
        answer = first + second if correct else first - second
        length = max(4, round(rng.gauss(_LONG[checkpoint], _LONG[checkpoint] / 6)))
        rows.append(
            {
                "problem_id": f"p{number:04d}", "sample": 0,
                "question": f"Ann has {first} pens and finds {second} more. How many has she now? {text}",
                "answer": str(first + second),
                "completion": f"Step 1: {first} + {second} = {answer}\n{text}\nAnswer: {answer}",
                "predicted": str(answer), "correct": correct, "valid_format": checkpoint != "base",
                "num_tokens": min(length, 192), "truncated": length > 192,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def training(stage: str, folder: Path, num_steps: int, text: str = "") -> Training:
    """A log of SFT for stage 1, of GRPO with validations and rollouts for the others."""
    rng = random.Random(stage)
    rows: list[tuple[int, str, float]] = []
    for step in range(1, num_steps + 1):
        done = step / num_steps
        figures = {
            "loss": 1.4 - done,
            "entropy": 0.3 - 0.2 * done,
            "gradient_norm": 0.6,
            "learning_rate": 1e-5,
        }
        if stage != "stage1":
            figures |= {
                "reward": 0.5 + 0.3 * done, "reward_deviation": 0.4 - 0.1 * done, "correct": 0.5 + 0.2 * done,
                "valid_format": 0.97, "truncated": 0.02, "completion_tokens": 60 - 12 * done, "kl": 0.02 * done,
                "groups_without_variance": 0.2 + 0.3 * done, "replaced_prompts": 4 + 8 * done, "bare_questions": done,
            }  # fmt: skip
            if step % 10 == 0:
                figures["validation_accuracy"] = 0.6 + 0.01 * step
        rows += [(step, name, value * rng.uniform(0.9, 1.1)) for name, value in figures.items()]
    log = pd.DataFrame(rows, columns=["step", "name", "value"])
    if stage == "stage1":
        return Training(log)
    file = folder / f"{stage}.parquet"
    states = range(0, num_steps + 1, 10)
    write_rows(
        file,
        ValidatedAnswer,
        (
            ValidatedAnswer(step, step == states[-2], f"p{n}", n < 60 + step, 60 - step // 4)
            for step in states
            for n in range(100)
        ),
    )
    rollouts = folder / f"{stage}-rollouts.parquet"
    write_rows(
        rollouts, Rollout, (one for step in range(1, num_steps + 1) for one in _group(step, text))
    )
    return Training(log, file, rollouts)


def _group(step: int, text: str) -> list[Rollout]:
    """Four completions of one prompt, rewarded 0 to 3 hundredths above the number of their step."""
    return [
        Rollout(
            step=step, example=step % 7, problem_id=f"p{step % 7}", helped=step % 2 == 0, trained=True,
            prompt=[{"role": "user", "content": f"What is {step} + 1? {text}"}],
            completion=f"Step 1: {step} + 1 = {step + place}\nAnswer: {step + place} {text}", num_tokens=20 + place,
            truncated=False, correct=place == 1, valid_format=True, reward=step + place / 100, base=float(step),
            brevity_steps=0.0, length=place / 100, advantage=place - 1.5,
        )
        for place in range(4)
    ]  # fmt: skip


def costs_of(recipe: Recipe) -> list[Cost]:
    """What made-up artifacts took."""
    kinds = ["problems", "rationales", "lessons", "evaluation-base"]
    kinds += [kind for name in recipe.starts for kind in (name, f"evaluation-{name}")]
    return [
        Cost(
            Record(
                kind=kind, fingerprint=f"{number:032x}", attempt="0" * 8, step_version=1, fields={}, inputs={},
                counts={}, files=[], versions={"cotpipe": "0.1.0", "torch": "2.13.0"},
                made_at="2026-01-01T10:00:00+00:00", seconds=17.3 * (number + 1) ** 2,
            ),
            17.3 * (number + 1) ** 2,
            12_345 * number if kind.startswith("evaluation") else None,
            456_789 if kind in ("stage2", "stage3") else None,
        )
        for number, kind in enumerate(kinds)
    ]  # fmt: skip


def run_results(
    folder: Path,
    stages: Sequence[str] = ("stage1", "stage2", "stage3"),
    num_problems: int = 60,
    text: str = "",
) -> RunResults:
    """The results of a made-up run; `text` stands in every question and answer."""
    recipe = recipe_of_stages(*stages)
    rows = {name: evaluated(name, num_problems, text) for name in recipe.checkpoints}
    trainings = {name: training(name, folder, 40, text) for name in recipe.starts}
    found = [
        read_choice(name, one.validations) for name, one in trainings.items() if one.validations
    ]
    return RunResults(
        recipe=recipe,
        rows=rows,
        trainings=trainings,
        choices=[choice for choice in found if choice],
        outcomes=_OUTCOMES,
        teacher={
            f"p{number:04d}": [f"a step {text}" for step in range(2 + number % 4)]
            for number in range(num_problems)
        },
        costs=costs_of(recipe),
    )
