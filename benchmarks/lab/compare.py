"""Arms of the laboratory's curriculum over several seeds: accuracy and tokens of every stage.

    python benchmarks/lab/compare.py STUDENT STORE [--seeds 1 2 3 4 5] [--arms full sft ...]

Every arm is the recipe of this folder with changes. The store keeps what was computed: interrupted,
the same command goes on, and a seed or an arm more costs only its own steps. Prints one line per
arm, seed and stage, then the mean change from stage to stage over the seeds with its 95 % interval.
"""

import argparse
import itertools
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cotpipe.data.rows import Answered, read_rows
from cotpipe.progress import Silent
from cotpipe.recipe.files import load_recipe
from cotpipe.recipe.model import Recipe
from cotpipe.report.statistics import mean
from cotpipe.settings import Settings
from cotpipe.steps.curriculum import steps_of
from cotpipe.steps.runner import Outcome, StepRunner
from cotpipe.store.artifacts import open_store
from cotpipe.store.records import Reference

RECIPE = Path(__file__).with_name("recipe.yaml")


class Arm(NamedTuple):
    """A variant of the recipe."""

    changes: Sequence[str] = ()
    num_stages: int = 3  # the first ones of the recipe


ARMS = {
    "full": Arm(),
    "no-masks": Arm(["stage1.examples.masks.first_share=1"]),
    "published-reward": Arm(["stage2.trainer.reward={preset: published}"]),
    "no-replacements": Arm(["stage2.trainer.replacements=0", "stage3.trainer.replacements=0"]),
    "no-help": Arm(["stage2.examples.pass_rates.rungs=1", "stage3.examples.pass_rates.rungs=1"]),
    "in-order": Arm(
        ["stage2.examples.pass_rates=null", "stage2.trainer.replacements=0"], num_stages=2
    ),
    "sft": Arm(["stage1.examples.num_epochs=20"], num_stages=1),
}


class Scored(NamedTuple):
    """A checkpoint's evaluation."""

    accuracy: float  # share in [0, 1]
    tokens: float  # mean length


def recipe_of(arm: Arm, *changes: str) -> Recipe:
    """The recipe of an arm."""
    recipe = load_recipe(str(RECIPE), [*changes, *arm.changes])
    return recipe.model_copy(update={"stages": recipe.stages[: arm.num_stages]})


def run_arm(arm: Arm, student: Path, settings: Settings, seed: int) -> dict[str, Scored]:
    """Run or reuse all steps of an arm but the report; its evaluations by checkpoint."""
    recipe = recipe_of(arm, f"student.model={student}", f"seed={seed}")
    runner = StepRunner(open_store(settings), settings, Silent())
    inputs: dict[str, Reference] = {}
    scored = {}
    for kind, step in steps_of(recipe).items():
        if step.verb == "report":
            continue
        outcome = runner.run(step, recipe, inputs)
        inputs[kind] = outcome.reference
        if step.verb == "evaluate":
            scored[kind.removeprefix("evaluation-")] = _scored(runner, outcome)
    return scored


def _scored(runner: StepRunner, outcome: Outcome) -> Scored:
    rows = list(read_rows(runner.store.path(outcome.record, "evaluations.parquet"), Answered))
    return Scored(
        statistics.fmean(row.correct for row in rows),
        statistics.fmean(row.num_tokens for row in rows),
    )


def tell(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def tell_changes(arm: str, recipe: Recipe, found: Mapping[int, Mapping[str, Scored]]) -> None:
    """Print the mean changes from each checkpoint to the next, and from stage 1 to the last."""
    names = list(recipe.checkpoints)
    pairs = [*list(itertools.pairwise(names)), (names[1], names[-1])]
    for before, after in dict.fromkeys(pairs):
        if before == after:
            continue
        points = mean(
            [100 * (one[after].accuracy - one[before].accuracy) for one in found.values()]
        )
        share = mean([100 * (one[after].tokens / one[before].tokens - 1) for one in found.values()])
        tell(
            f"{arm:18} {before:>7} to {after:7} {len(found)} seeds: "
            f"accuracy {points.value:+6.1f} points [{points.low:+.1f}, {points.high:+.1f}], "
            f"tokens {share.value:+6.1f} % [{share.low:+.1f}, {share.high:+.1f}]"
        )


def main() -> None:
    """Run the arms, seed by seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("student", type=Path)
    parser.add_argument("store")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["full"])
    arguments = parser.parse_args()
    settings = Settings(store=arguments.store)
    found: dict[str, dict[int, dict[str, Scored]]] = {arm: {} for arm in arguments.arms}
    for seed in arguments.seeds:
        for arm in arguments.arms:
            found[arm][seed] = run_arm(ARMS[arm], arguments.student.resolve(), settings, seed)
            for name, scored in found[arm][seed].items():
                tell(
                    f"{arm:18} seed {seed} {name:7} {100 * scored.accuracy:5.1f} % {scored.tokens:6.1f} tokens"
                )
    for arm in arguments.arms:
        tell_changes(arm, recipe_of(ARMS[arm]), found[arm])


if __name__ == "__main__":
    main()
