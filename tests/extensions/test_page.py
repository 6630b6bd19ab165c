"""The extension points: the very lines of docs/extending.md."""

from pathlib import Path

import pytest
import yaml

from cotpipe.data.rows import Answered, Example, Generation, Problem, TeacherRationale, read_rows
from cotpipe.rationale.lengths import count_words
from cotpipe.rationale.rewards import Target, reward_named
from cotpipe.recipe.files import load_recipe
from cotpipe.settings import Settings
from cotpipe.steps.plan import name_artifacts
from cotpipe.store.artifacts import open_store
from tests.helpers.extensions import (
    FILES,
    SOURCE,
    recipe_with,
    rows,
    run_until,
    train_with_the_reward,
)


def test_the_page_shows_one_file_for_each_door():
    assert list(FILES) == ["rewards.py", "masks.py", "problems.py", "answers.py", "engines.py"]


def test_the_reward(tmp_path):
    recipe = recipe_with(tmp_path, "rewards.py")
    stage = recipe.stage("stage2")
    reward = reward_named(stage.reward_name(stage.trainer))
    target = Target("72", teacher_steps=4, teacher_length=20)
    short = reward("Step 1: 48 + 24\nAnswer: 72", target, count_words)
    assert short.reward == pytest.approx(1 + 0.5 - 7 / 20)
    assert reward("Step 1: 48 + 24\nAnswer: 71", target, count_words).reward == -2


def test_the_reward_trains(tmp_path, tiny_student):
    outcome = train_with_the_reward(tmp_path, tiny_student)
    assert outcome.record.counts["optimizer_steps"] == 1


def test_the_mask(tmp_path):
    recipe = recipe_with(tmp_path, "masks.py", problems=SOURCE)
    store, outcome = run_until("stage1-examples", recipe, tmp_path)
    for row in rows(store, outcome, "examples", Example):
        num_steps = len(row.teacher_steps)
        assert row.masked == list(range(num_steps - len(row.masked), num_steps))


def test_the_source(tmp_path):
    store, outcome = run_until("problems", recipe_with(tmp_path, "problems.py"), tmp_path)
    found = rows(store, outcome, "problems", Problem)
    assert [row.problem_id for row in found] == [f"sum-{number}" for number in range(40)]


def test_the_kind_of_answer(tmp_path):
    Path("questions.jsonl").write_text(
        "".join(
            f'{{"question": "Is {n} even?", "answer": "{"no" if n % 2 else "yes"}", '
            f'"why": "Look at {n}.\\nIt ends in {n % 10}.\\nSo {"no" if n % 2 else "yes"}."}}\n'
            for n in range(40)
        )
    )
    source = {"kind": "file", "path": "questions.jsonl", "rationale_column": "why"}
    recipe = recipe_with(tmp_path, "answers.py", problems={"source": source})
    store, outcome = run_until("rationales", recipe, tmp_path)
    found = rows(store, outcome, "rationales", TeacherRationale)
    assert [row.answer for row in found] == ["yes", "no"] * 20
    store, outcome = run_until("stage1-examples", recipe, tmp_path)
    prompt = rows(store, outcome, "examples", Example)[0].prompt
    assert prompt[0]["content"].endswith("then 'Answer: yes or no'.")


def test_the_engine_as_a_teacher(tmp_path):
    recipe = recipe_with(tmp_path, "engines.py", problems=SOURCE)
    store, outcome = run_until("rationales", recipe, tmp_path)
    assert outcome.record.parts
    (shard,) = [record for record in store.records() if record.kind == "generations"]
    said = [row.text for row in read_rows(store.path(shard, "generations.parquet"), Generation)]
    assert len(said) == 40
    assert set(said) == {"Step 1: 6 x 7\nStep 2: = 42\nAnswer: 42"}


def test_the_engine_as_the_student(tmp_path, tiny_student):
    path = tmp_path / "recipe.yaml"
    values = {"student": {"model": str(tiny_student)}, "problems": SOURCE}
    path.write_text(yaml.safe_dump(values))
    store, outcome = run_until(
        "evaluation-base", load_recipe(str(path)), tmp_path, engine="engines.py:parrot"
    )
    assert {row.predicted for row in rows(store, outcome, "evaluations", Answered)} == {"42"}


@pytest.mark.parametrize("name", FILES)
def test_what_a_file_makes_is_named_after_its_content(name, tmp_path):
    recipe = recipe_with(tmp_path, name)
    store = open_store(Settings(store=str(tmp_path / "store")))
    before = name_artifacts(recipe, store)
    assert before == name_artifacts(recipe, store)
    Path(name).write_text(FILES[name] + "\n# another version\n")
    assert before["report"] != name_artifacts(recipe, store)["report"]
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    Path(name).write_text(FILES[name])
    Path(name).rename(moved / name)
    path = Path("recipe.yaml")
    path.write_text(path.read_text().replace(name, f"elsewhere/{name}"))
    assert before == name_artifacts(load_recipe("recipe.yaml"), store)
