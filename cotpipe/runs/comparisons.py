"""Comparisons in a store: what each began with, its runs by arm and seed, and what they reached."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from cotpipe.errors import UserError
from cotpipe.recipe.comparison import Arm, Comparison
from cotpipe.recipe.model import Recipe
from cotpipe.recipe.trainers import Sft
from cotpipe.report.arms import contrasts, score_arm
from cotpipe.report.compared import CheckpointScore, Compared, Spent, Unfinished
from cotpipe.report.comparison_page import write_comparison_page
from cotpipe.report.summary import read_evaluations
from cotpipe.runs.log import Run, read_runs, recipe_of
from cotpipe.steps.plan import flatten, name_artifacts
from cotpipe.store.artifacts import Store
from cotpipe.store.records import Record, Reference

if TYPE_CHECKING:
    import pandas as pd

FOLDER = "comparisons"
"""The store's folder of comparisons."""
_MOST_EPOCHS = 1000


class _Begun(BaseModel):
    """What a comparison was when its first run began: the recipe of every arm, without its seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arms: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Member:
    """One arm with one seed, and its newest run."""

    arm: str
    seed: int
    run: Run | None = None

    @property
    def state(self) -> str:
        """The state of its run; `missing` without one."""
        return self.run.state if self.run else "missing"

    @property
    def is_done(self) -> bool:
        """Whether its run has completed, up to the report."""
        return self.state == "completed" and self.run is not None and "report" in self.run.steps

    @property
    def why(self) -> str:
        """Why it has no result; empty if it has not been run."""
        if self.run is None:
            return ""
        return f"{self.state} ({self.run.run_id}{': ' + self.run.error if self.run.error else ''})"


def begin(store: Store, comparison: Comparison) -> None:
    """Write down what the comparison compares, or check it against what it was at first.

    New arms are added. Raises `UserError` if an arm is not what it was: its earlier seeds would be
    of another recipe than its later ones.
    """
    name = f"{FOLDER}/{comparison.name}.json"
    now = {arm: _without_seed(one.recipe) for arm, one in comparison.arms.items()}
    earlier = _read(store, name)
    for arm, recipe in now.items():
        before = earlier.arms.get(arm, recipe)
        if before != recipe:
            old, new = flatten(before), flatten(recipe)
            keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
            raise UserError(
                f"comparison {comparison.name}: the arm {arm!r} is not the one that it began with "
                f"({', '.join(keys[:5])} changed); undo that, or give the comparison another name"
            )
    if missing := now.keys() - earlier.arms.keys():
        arms = earlier.arms | {arm: now[arm] for arm in missing}
        store.storage.replace(name, _Begun(arms=arms).model_dump_json(indent=2).encode())


def _read(store: Store, name: str) -> _Begun:
    text = store.storage.read(name)
    if text is None:
        return _Begun(arms={})
    try:
        return _Begun.model_validate_json(text)
    except ValidationError as error:
        raise UserError(
            f"{store.storage.location(name)} is not what cotpipe wrote there; move it away, or give "
            "the comparison another name"
        ) from error


def _without_seed(recipe: Recipe) -> dict[str, Any]:
    """What the recipe computes, as JSON; user functions and local files count by their content."""
    identity: dict[str, Any] = json.loads(json.dumps(recipe.identity()))
    del identity["seed"]
    return identity


def members_of(store: Store, comparison: Comparison) -> list[Member]:
    """Every arm with every seed, and the newest run of each."""
    runs = {(run.recipe["name"], run.recipe["seed"]): run for run in read_runs(store.storage)}
    return [
        Member(arm, seed, runs.get((comparison.arms[arm].recipe.name, seed)))
        for arm, seed in comparison.members((), ())
    ]


def is_current(store: Store, run: Run) -> bool:
    """Whether this version of cotpipe would make the very artifacts that a run has."""
    return name_artifacts(recipe_of(run), store) == run.references


def compare_arms(store: Store, comparison: Comparison) -> Compared:
    """What the completed runs of a comparison show.

    Raises `UserError` if arms were evaluated on different problems.
    """
    import pandas as pd

    members = members_of(store, comparison)
    answers: dict[tuple[str, str], list[pd.DataFrame]] = {}
    last: dict[str, tuple[str, str]] = {}  # arm and checkpoint, by arm
    costs: dict[str, list[Spent]] = {}
    for member in members:
        if member.run is None or not member.is_done:
            continue
        for checkpoint, rows in _evaluations(store, member.run).items():
            last[member.arm] = member.arm, checkpoint
            answers.setdefault(last[member.arm], []).append(rows.assign(seed=member.seed))
        costs.setdefault(member.arm, []).append(cost_of(store, member.run.references))
    _require_same_problems(comparison, {arm: answers[key] for arm, key in last.items()})
    together = {key: pd.concat(rows, ignore_index=True) for key, rows in answers.items()}
    joined = {arm: together[key] for arm, key in last.items()}
    return Compared(
        comparison.name,
        comparison.baseline,
        {arm: score_arm(arm, rows) for arm, rows in joined.items()},
        [
            CheckpointScore(arm, checkpoint, score_arm(arm, rows))
            for (arm, checkpoint), rows in together.items()
        ],
        {arm: _mean(found) for arm, found in costs.items()},
        contrasts(comparison.baseline, joined),
        [Unfinished(one.arm, one.seed, one.why) for one in members if not one.is_done],
    )


def _evaluations(store: Store, run: Run) -> "dict[str, pd.DataFrame]":
    """The answers of a run's checkpoints, but for the student that it began with."""
    files = {}
    for checkpoint in run.checkpoints[1:]:
        record = store.require(run.references[f"evaluation-{checkpoint}"])
        files[checkpoint] = store.path(record, "evaluations.parquet")
    return read_evaluations(files)


def _require_same_problems(
    comparison: Comparison, answers: "Mapping[str, list[pd.DataFrame]]"
) -> None:
    asked: dict[int, tuple[str, list[str]]] = {}
    for arm, frames in answers.items():
        for rows in frames:
            seed, problems = int(rows["seed"].iloc[0]), rows["problem_id"].tolist()
            first, known = asked.setdefault(seed, (arm, problems))
            if problems != known:
                raise UserError(
                    f"comparison {comparison.name}, seed {seed}: the arms {first!r} and {arm!r} were "
                    f"evaluated on different problems ({len(known)} and {len(problems)}, "
                    f"{len(set(known) & set(problems))} in common), so nothing can be said; leave "
                    "`problems` and the held-out splits alike in both"
                )


def write_page(store: Store, compared: Compared) -> None:
    """Write the page of a comparison into the store, in place of the one before."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "page.html")
        write_comparison_page(page, compared)
        store.storage.replace(page_of(compared.name), page.read_bytes())


def page_of(comparison: str) -> str:
    """The name of a comparison's page in the storage of its store."""
    return f"{FOLDER}/{comparison}.html"


def cost_of(store: Store, references: Mapping[str, Reference]) -> Spent:
    """What the artifacts of a run cost; those that all arms share are counted in each."""
    records = [record for one in references.values() if (record := store.record(one))]
    return Spent(
        sum(record.counts.get("trained_tokens", 0) for record in records),
        sum(record.counts.get("sampled_tokens", 0) for record in records),
        sum(record.seconds for record in records),
    )


def _mean(costs: list[Spent]) -> Spent:
    count = len(costs)
    return Spent(
        round(sum(cost.trained_tokens for cost in costs) / count),
        round(sum(cost.sampled_tokens for cost in costs) / count),
        sum(cost.seconds for cost in costs) / count,
    )


def with_budget(arm: Arm, seed: int, trained: Record, spent: Spent, budget: Spent) -> Recipe:
    """The recipe of an arm whose last stage takes so many epochs that its tokens fill a budget.

    Args:
        arm: The arm.
        seed: The seed.
        trained: The record of its last stage, trained with the epochs of the arm's own recipe.
        spent: What the arm has cost with these epochs.
        budget: What it may cost.
    """
    recipe = arm.with_seed(seed)
    last = recipe.stages[-1]
    assert isinstance(last.trainer, Sft)
    in_last = trained.counts["trained_tokens"]
    per_epoch = in_last / last.examples.num_epochs
    epochs = round((budget.tokens - (spent.tokens - in_last)) / per_epoch)
    if not 1 <= epochs <= _MOST_EPOCHS:
        raise UserError(
            f"{recipe.name}: with {arm.budget_of}'s budget of {budget.tokens:,} tokens, {last.name} would "
            f"take {epochs} epochs of {per_epoch:,.0f} tokens; give it other problems or max_problems"
        )
    examples = last.examples.model_copy(update={"num_epochs": epochs})
    stage = last.model_copy(update={"examples": examples})
    return recipe.model_copy(update={"stages": (*recipe.stages[:-1], stage)})
