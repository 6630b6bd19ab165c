"""Comparisons in a store: their runs by arm and seed, what they reached, and their pages."""

import copy
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cotpipe.errors import UserError
from cotpipe.recipe.comparison import Arm, Comparison
from cotpipe.recipe.model import Recipe
from cotpipe.recipe.trainers import Sft
from cotpipe.report.arms import contrasts, score_arm
from cotpipe.report.compared import CheckpointScore, Compared, Spent, Unfinished
from cotpipe.report.comparison_page import write_comparison_page
from cotpipe.runs.answers import answers_of
from cotpipe.runs.log import Run, read_runs, recipe_of
from cotpipe.steps.plan import flatten, name_artifacts
from cotpipe.store.artifacts import Store
from cotpipe.store.records import Record, Reference

if TYPE_CHECKING:
    import pandas as pd

FOLDER = "comparisons"
"""The store's folder of comparisons."""
_MOST_EPOCHS = 1000


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
        return self.run is not None and _is_done(self.run)

    @property
    def why(self) -> str:
        """Why it has no result; empty if it has not been run."""
        if self.run is None:
            return ""
        return f"{self.state} ({self.run.run_id}{': ' + self.run.error if self.run.error else ''})"


def require_unchanged(store: Store, comparison: Comparison) -> None:
    """Raise `UserError` if an arm has a completed run of another recipe: its seeds would not belong together."""
    runs = read_runs(store.storage)
    for name, arm in comparison.arms.items():
        now = _without_seed(arm, arm.recipe.model_dump(mode="json"))
        for run in runs:
            if run.recipe.get("name") != arm.recipe.name or not _is_done(run):
                continue
            before = _without_seed(arm, run.recipe)
            if before != now:
                old, new = _flat(before), _flat(now)
                keys = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
                raise UserError(
                    f"comparison {comparison.name}: the arm {name!r} is not what it was in run "
                    f"{run.run_id} ({', '.join(keys[:5])} changed); undo that, or give the comparison "
                    "another name (--name)"
                )


def _without_seed(arm: Arm, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe but for its seed and, if a budget decides about them, the epochs of its last stage."""
    values = copy.deepcopy(dict(recipe))
    values.pop("seed", None)
    if arm.budget_of and values.get("stages"):
        values["stages"][-1]["examples"].pop("num_epochs", None)
    return values


def _flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a recipe as `--set` names them."""
    stages = {stage["name"]: stage for stage in recipe.get("stages", ())}
    return flatten({key: value for key, value in recipe.items() if key != "stages"} | stages)


def _is_done(run: Run) -> bool:
    """Whether a run has completed, up to the report."""
    return run.state == "completed" and "report" in run.steps


def members_of(store: Store, comparison: Comparison) -> list[Member]:
    """Every arm with every seed, and the newest run of its recipe; a completed one before others."""
    runs = read_runs(store.storage)
    return [
        Member(name, seed, _newest_run(runs, comparison.arms[name], seed))
        for name, seed in comparison.members((), ())
    ]


def _newest_run(runs: Sequence[Run], arm: Arm, seed: int) -> Run | None:
    wanted = _without_seed(arm, arm.recipe.model_dump(mode="json"))
    found = [
        run
        for run in runs
        if run.recipe.get("name") == arm.recipe.name
        and run.recipe.get("seed") == seed
        and _without_seed(arm, run.recipe) == wanted
    ]
    return next(filter(_is_done, reversed(found)), found[-1] if found else None)


def is_current(store: Store, run: Run) -> bool:
    """Whether this version of cotpipe would make the very artifacts that a run has, and they are there.

    What `gc` has set aside of its evaluations is taken back.
    """
    try:
        named = name_artifacts(recipe_of(run), store)
    except UserError:
        return False  # not a recipe of this version, or code of the user's that is gone
    evaluated = [one for one in named.values() if one.kind.startswith("evaluation-")]
    return named == run.references and all(store.check(one) for one in evaluated)


def compare_arms(
    store: Store, comparison: Comparison, failed: Mapping[tuple[str, int], str] | None = None
) -> Compared:
    """What the completed runs of a comparison show.

    Those of which an artifact is gone do not count, nor those of another version of cotpipe.

    Args:
        store: Their store.
        comparison: The comparison.
        failed: Why arms failed with seeds, where it is known.

    Raises:
        UserError: Arms were evaluated on different problems.
    """
    import pandas as pd

    members = members_of(store, comparison)
    gone: dict[tuple[str, int], str] = dict(failed or {})
    answers: dict[tuple[str, str], list[pd.DataFrame]] = {}
    last: dict[str, tuple[str, str]] = {}  # arm and checkpoint, by arm
    costs: dict[str, list[Spent]] = {}
    for member in members:
        if member.run is None or not member.is_done or (member.arm, member.seed) in gone:
            continue
        checkpoints = member.run.checkpoints[1:]  # but for the student that it began with
        evaluated = answers_of(member.run, store, checkpoints)
        if why := _why_not_counted(store, member.run, evaluated.keys() >= set(checkpoints)):
            gone[member.arm, member.seed] = why
            continue
        for checkpoint in checkpoints:
            last[member.arm] = member.arm, checkpoint
            rows = evaluated[checkpoint].assign(seed=member.seed)
            answers.setdefault(last[member.arm], []).append(rows)
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
        [
            Unfinished(one.arm, one.seed, gone.get((one.arm, one.seed), one.why))
            for one in members
            if not one.is_done or (one.arm, one.seed) in gone
        ],
    )


def _why_not_counted(store: Store, run: Run, has_answers: bool) -> str:
    """Why a completed run does not count; empty if it does."""
    if not has_answers:
        return f"what run {run.run_id} evaluated is no longer in the store; compare again"
    if not is_current(store, run):
        return (
            f"this version of cotpipe would make other artifacts than run {run.run_id} did, so it is "
            "not put together with others; compare again"
        )
    return ""


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


def compared_runs(runs: Iterable[Run], files: Collection[str]) -> set[str]:
    """The ids of the runs that a comparison counts, as long as its page is in the store.

    Args:
        runs: The runs of a store, oldest first.
        files: The names of all files in its storage.
    """
    pages = {Path(name).stem for name in files if Path(name).match(f"{FOLDER}/*.html")}
    newest: dict[tuple[str, int], str] = {}
    for run in runs:
        name, seed = run.recipe.get("name", ""), run.recipe.get("seed", 0)
        if _is_done(run) and name.partition(".")[0] in pages:
            newest[name, seed] = run.run_id
    return set(newest.values())


def page_of(comparison: str) -> str:
    """The name of a comparison's page in the storage of its store."""
    return f"{FOLDER}/{comparison}.html"


def cost_of(store: Store, references: Mapping[str, Reference]) -> Spent:
    """What the artifacts of a run cost; those that all arms share are counted in each.

    Tokens are those of attempts, minings and trainings: validation and evaluation measure, and teach
    nothing.
    """
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
    in_last = trained.counts.get("trained_tokens", 0)
    if not in_last:
        raise UserError(f"{recipe.name}: {last.name} has too few rows for an optimizer step")
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
