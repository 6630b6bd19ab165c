"""A comparison from the command to its verdict: failing arms, budgets, resumption, arms that changed."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from cotpipe.recipe.comparison import load_comparison
from cotpipe.runs.comparisons import compare_arms, cost_of, members_of
from cotpipe.runs.garbage import Look
from cotpipe.runs.log import read_runs
from cotpipe.settings import Settings
from cotpipe.store.artifacts import open_store
from tests.helpers.flow_runs import TINY, assert_one_line_error, cotpipe, cotpipe_process

ONE_STAGE = {"stages": ["stage1"]}
ARMS: dict[str, Any] = {
    "short": ONE_STAGE,
    "long": ONE_STAGE | {"set": {"stage1.examples.num_epochs": 3}},
    "as-long": ONE_STAGE | {"set": {"stage1.examples.masks.first_share": 1}, "budget_of": "long"},
    "broken": ONE_STAGE | {"set": {"teacher.engine": "openai", "teacher.model": "absent"}},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("comparison")


@pytest.fixture(scope="module")
def compare(place, tiny_student, prefect):
    """Run `cotpipe compare` on the comparison with changes."""

    def run(*options: str, process: bool = False, columns: str = "240", **changes):
        comparison = {
            "name": "tiny", "recipe": TINY, "seeds": [1, 2], "baseline": "short", "arms": ARMS
        } | changes  # fmt: skip
        file = place / "tiny-arms.yaml"
        file.write_text(yaml.safe_dump(comparison, sort_keys=False), encoding="utf-8")
        call = cotpipe_process if process else cotpipe
        model = f"student.model={tiny_student}"
        return call(
            "compare", str(file), "--set", model, "--store", str(place / "store"), *options,
            PREFECT_API_URL=prefect, COLUMNS=columns,
        )  # fmt: skip

    return run


@pytest.fixture(scope="module")
def first(compare):
    """The first seed of all arms, one of which fails."""
    return compare("--seed", "1", process=True)


@pytest.fixture
def store(place):
    return open_store(Settings(store=str(place / "store")))


def test_an_arm_that_fails_is_shown_and_ends_no_other(first):
    assert_one_line_error(first, 1, "1 failed: broken, seed 1: ", "COTPIPE_SERVERS")
    assert "short (baseline)" in first.stdout
    assert (
        "long against short: no verdict: one seed tells nothing about other seeds" in first.stdout
    )
    assert "broken, seed 1: failed (" in first.stdout
    assert "long: not run yet with seed 2" in first.stdout


def test_a_budget_is_filled_with_epochs_and_every_arm_shows_what_it_cost(
    first, store, place, tiny_student
):
    comparison = load_comparison(str(place / "tiny-arms.yaml"), [f"student.model={tiny_student}"])
    runs = {(one.arm, one.seed): one.run for one in members_of(store, comparison) if one.run}
    costs = {arm: cost_of(store, runs[arm, 1].references) for arm in ("short", "long", "as-long")}
    assert costs["long"].trained_tokens > 2.5 * costs["short"].trained_tokens > 0
    epochs = runs["as-long", 1].recipe["stages"][0]["examples"]["num_epochs"]
    assert epochs > 1
    per_epoch = costs["as-long"].tokens / epochs
    assert abs(costs["as-long"].tokens - costs["long"].tokens) <= per_epoch / 2
    assert f"{costs['long'].trained_tokens:,}" in first.stdout
    evaluated = compare_arms(store, comparison).scores
    assert set(evaluated) == {"short", "long", "as-long"}


def test_another_seed_and_an_arm_less_cost_only_their_own_steps(first, compare, store):
    arms = {name: ARMS[name] for name in ("short", "long")}
    before = len(read_runs(store.storage))
    done = compare(arms=arms)
    assert done.returncode == 0, done.stderr
    assert len(read_runs(store.storage)) == before + 2  # seed 2 of both; seed 1 is there
    assert "no difference shown" in done.stdout or "beyond noise" in done.stdout
    again = compare(arms=arms)
    assert again.stdout == done.stdout
    assert len(read_runs(store.storage)) == before + 2


def test_seeds_side_by_side_are_runs_like_others_and_each_failure_is_told(compare, store, place):
    named = ("--name", "beside", "--at-once", "2")
    arms = {name: ARMS[name] for name in ("short", "broken")}
    arms["as-broken"] = ONE_STAGE | {"budget_of": "broken"}
    done = compare(*named, process=True, arms=arms)
    assert_one_line_error(done, 1, "2 of 2 seeds failed: seed 1: 2 failed: broken, seed 1: ")
    assert "seed 2: 2 failed: broken, seed 2: " in done.stderr
    assert "broken, seed 2: failed (" in done.stdout
    assert re.search(
        r"as-broken, seed 1: failed \(.*: its budget is that of broken, which has no", done.stdout
    )
    runs = [one for one in read_runs(store.storage) if one.recipe["name"] == "beside.short"]
    assert sorted((one.recipe["seed"], one.state) for one in runs) == [
        (1, "completed"),
        (2, "completed"),
    ]
    page = place / "store" / "comparisons" / "beside.html"
    kept = page.read_bytes()
    changed = compare(*named, "--set", "stage1.trainer.learning_rate=1e-3", process=True, arms=arms)
    assert_one_line_error(changed, 2, "the arm 'short' is not what it was in run")
    assert page.read_bytes() == kept


def test_a_narrow_terminal_shows_results_and_costs_one_under_the_other(first, compare):
    shown = compare("--dry-run").stdout
    narrow = compare("--dry-run", columns="80").stdout
    assert shown.count("comparison tiny") == 1
    assert narrow.count("comparison tiny") == 2
    tables = [line for line in narrow.splitlines() if line[:1] in "┏┃┡│└"]
    assert all(len(line) <= 80 for line in tables)
    assert "…" not in narrow
    for whole in ("short (baseline)", "1 common seed", "tokens trained on"):
        assert whole in narrow


def test_runs_of_another_version_are_told_and_not_put_together_with_others(
    first, compare, place, tiny_student, tmp_path
):
    arms = {name: ARMS[name] for name in ("short", "long")}
    compare(arms=arms)
    copied = open_store(Settings(store=str(shutil.copytree(place / "store", tmp_path / "store"))))
    comparison = load_comparison(str(place / "tiny-arms.yaml"), [f"student.model={tiny_student}"])
    (old,) = (
        one.run for one in members_of(copied, comparison) if (one.arm, one.seed) == ("short", 1)
    )
    assert old
    (file,) = (tmp_path / "store" / "runs").glob(f"{old.run_id}*")
    file.write_text(file.read_text().replace(old.artifacts["stage1"], "0" * 32))
    compared = compare_arms(copied, comparison)
    assert {arm: one.num_seeds for arm, one in compared.scores.items()} == {"short": 1, "long": 2}
    (told,) = compared.unfinished
    assert (told.arm, told.seed) == ("short", 1)
    assert "this version of cotpipe would make other artifacts than run" in told.why


def test_arms_that_changed_since_their_first_seed_are_refused(first, compare):
    arms = ARMS | {"long": ONE_STAGE | {"set": {"stage1.examples.num_epochs": 4}}}
    refused = compare(arms=arms)
    assert_one_line_error(
        refused,
        2,
        "the arm 'long' is not what it was in run",
        "stage1.examples.num_epochs",
        "--name",
    )
    base = compare("--set", "stage1.trainer.learning_rate=1e-3")
    assert_one_line_error(base, 2, "is not what it was in run", "stage1.trainer.learning_rate")


def test_runs_of_other_recipes_are_no_members(first, store, place, tiny_student):
    comparison = load_comparison(str(place / "tiny-arms.yaml"), [f"student.model={tiny_student}"])
    mine = {(one.arm, one.seed): one.run for one in members_of(store, comparison)}
    assert mine["short", 1]
    other = load_comparison(
        str(place / "tiny-arms.yaml"),
        [f"student.model={tiny_student}", "stage1.trainer.learning_rate=1e-3"],
    )
    assert not any(one.run for one in members_of(store, other))


def test_gc_keeps_what_a_comparison_counts_as_long_as_its_page_is_there(first, store, place):
    counted = {
        one.run_id
        for one in read_runs(store.storage)
        if one.recipe["name"].startswith("tiny.") and "probe" not in one.recipe["name"]
        if not one.error
    }
    assert counted <= {run.run_id for run in Look(store, 0, 0.0).kept_runs}
    page = place / "store" / "comparisons" / "tiny.html"
    kept = page.read_bytes()
    page.unlink()
    assert not counted & {run.run_id for run in Look(store, 0, 0.0).kept_runs}
    page.write_bytes(kept)


def test_a_dry_run_computes_nothing_and_unknown_names_are_refused(first, compare, store):
    before = len(read_runs(store.storage))
    shown = compare("--dry-run")
    assert shown.returncode == 0
    assert "short (baseline)" in shown.stdout
    assert len(read_runs(store.storage)) == before
    assert_one_line_error(compare("--arm", "none"), 2, "no arm 'none' in the comparison")
    assert_one_line_error(compare("--seed", "7"), 2, "no seed 7 in the comparison; it has: 1, 2")


def test_two_runs_are_compared_problem_by_problem(first, store, place):
    runs = {run.recipe["name"]: run.run_id for run in read_runs(store.storage) if not run.error}
    pair = runs["tiny.short"], runs["tiny.long"]
    shown = cotpipe("compare", *pair, "--store", str(place / "store"), COLUMNS="240")
    assert shown.returncode == 0, shown.stderr
    assert "stages" in shown.stdout
    assert f"stage 1 of {pair[1]} " in shown.stdout
    mixed = cotpipe("compare", *pair, "--dry-run", "--store", str(place / "store"))
    assert_one_line_error(mixed, 2, "leave out all options")
