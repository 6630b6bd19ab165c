"""The doors for extension: the very lines of docs/extending.md, and extensions that are broken."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cotpipe.data.rows import Answered, Example, Generation, Problem, TeacherRationale, read_rows
from cotpipe.errors import UserError
from cotpipe.extensions import Registry, load_own, own_identity
from cotpipe.progress import Silent
from cotpipe.rationale.lengths import count_words
from cotpipe.rationale.rewards import Target, reward_named
from cotpipe.recipe.files import load_recipe
from cotpipe.recipe.model import Recipe
from cotpipe.settings import Settings
from cotpipe.steps.curriculum import needed_for, steps_of
from cotpipe.steps.plan import name_artifacts
from cotpipe.steps.runner import Outcome, StepRunner
from cotpipe.store.artifacts import open_store
from tests.helpers.repository import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL))
RECIPES = dict(zip(FILES, re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL), strict=True))


@pytest.fixture(autouse=True)
def _the_pages_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).write_text(text)


def recipe_with(tmp_path: Path, name: str, **others: Any):
    """The recipe that the page shows for one of its files."""
    values = yaml.safe_load(RECIPES[name])
    for section, fields in others.items():
        values[section] = fields | values.get(section, {})
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return load_recipe(str(path))


def run_until(kind: str, recipe, tmp_path: Path, **settings: Any) -> tuple[Any, Outcome]:
    """The artifact of a step, and of all that it needs."""
    own = Settings(store=str(tmp_path / "store"), **settings)
    store = open_store(own)
    runner, found, steps = StepRunner(store, own, Silent()), {}, steps_of(recipe)
    for needed in needed_for(kind, steps):
        outcome = runner.run(steps[needed], recipe, found)
        found[needed] = outcome.reference
    return store, outcome


def rows(store, outcome: Outcome, name: str, row_type: type) -> list:
    return list(read_rows(store.path(outcome.record, f"{name}.parquet"), row_type))


SOURCE = {"source": {"kind": "arithmetic", "num_problems": 40}}


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
    stages = yaml.safe_load(RECIPES["rewards.py"])["stages"]
    stages[0]["trainer"] |= {
        "group_size": 2, "prompts_per_step": 2, "micro_batch": 4, "max_new_tokens": 4
    }  # fmt: skip
    stages[0]["examples"] |= {"max_problems": 2}
    path = tmp_path / "recipe.yaml"
    values = {"student": {"model": str(tiny_student)}, "problems": SOURCE, "stages": stages}
    path.write_text(yaml.safe_dump(values))
    _, outcome = run_until("stage2", load_recipe(str(path)), tmp_path)
    assert outcome.record.counts["optimizer_steps"] == 1


def test_a_reward_that_raises_in_training_is_one_line(tmp_path, tiny_student):
    Path("rewards.py").write_text("def terse(completion, target, length):\n    return 1 / 0\n")
    with pytest.raises(UserError, match=r"rewards.py:terse raised ZeroDivisionError: .*by zero"):
        test_the_reward_trains(tmp_path, tiny_student)


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"own.py:it: no such file: own.py; paths are relative to /"),
        (
            "import nothing_of_that_name",
            r"own.py:it: own.py cannot be imported: ModuleNotFoundError",
        ),
        ("def it(:", "own.py:it: own.py cannot be imported: SyntaxError"),
        ("1 / 0", "own.py:it: own.py cannot be imported: ZeroDivisionError: division by zero"),
        ("it = 3", "own.py:it: own.py has no function 'it'; check the recipe"),
        ("def other(): ...", "own.py:it: own.py has no function 'it'"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_one_line(content, message):
    if content is not None:
        Path("own.py").write_text(content)
    with pytest.raises(UserError, match=message) as error:
        load_own("own.py:it")
    assert "\n" not in str(error.value)


def test_a_module_that_is_not_installed_is_one_line():
    for name in ("nothing.here:it", "nothing:it"):
        with pytest.raises(UserError, match=f"{name}: there is no module 'nothing"):
            own_identity(name)


TARGET = Target("72", 3, 20)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("def it(*a): return 1.0", "own.py:it returned float, not RewardParts; fix the function"),
        ("def it(*a): raise KeyError('x\\ny')", r"own.py:it raised KeyError: .*fix the function"),
        (
            "from cotpipe.rationale.rewards import RewardParts\n"
            "def it(*a): return RewardParts(float('nan'), True, True, 1.0, 0.0, 0.0)",
            "own.py:it returned the reward nan, which is not a finite number",
        ),
    ],
)
def test_a_reward_that_is_none(content, message):
    Path("own.py").write_text(content)
    with pytest.raises(UserError, match=message) as error:
        reward_named("own.py:it")("text", TARGET, count_words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "old", "new", "kind", "message"),
    [
        (
            "masks.py",
            "return list",
            "return 7 or list",
            "stage1-examples",
            "returned 7, not a list",
        ),
        (
            "masks.py",
            "num_steps))",
            "num_steps + 1))",
            "stage1-examples",
            "not a list of indices of",
        ),
        ("problems.py", "yield Problem", "yield str", "problems", "raised TypeError"),
        ("problems.py", '"sum-{number}"', '"sum"', "problems", "yielded the id 'sum' twice"),
        ("problems.py", "yield Problem(", "yield (", "problems", "returned tuple, not Problem"),
        (
            "answers.py",
            "return AnswerKind(",
            "return (",
            "problems",
            "returned tuple, not AnswerKind",
        ),
        (
            "answers.py",
            "found[-1] if found else None",
            "found[9]",
            "rationales",
            "raised IndexError",
        ),
        ("problems.py", "yield Problem(", "yield Problem(1 or ", "problems", "problem_id is 1;"),
        ("answers.py", "found[-1] if found else None", "7", "rationales", "returned int, not str"),
        ("answers.py", 'form="yes or no"', "form=5", "problems", "returned int, not str"),
        ("engines.py", "for _ in requests", "for _ in sampling", "rationales", "raised TypeError"),
        (
            "engines.py",
            "for _ in requests",
            "for _ in requests[1:]",
            "rationales",
            "did not return 1",
        ),
        ("engines.py", "[said]", "['said']", "rationales", "did not return 1 `Generated`"),
        ("engines.py", "yield Parrot()", "yield None", "rationales", "has no method generate"),
        (
            "engines.py",
            "yield Parrot()",
            "raise OSError('no model')\n    yield",
            "rationales",
            "raised OSError: no model",
        ),
        (
            "engines.py",
            "@contextmanager\n",
            "",
            "rationales",
            "returned generator, not AbstractContextManager",
        ),
    ],
)
def test_a_broken_extension_ends_its_step_with_one_line(file, old, new, kind, message, tmp_path):
    assert old in FILES[file]
    text = FILES[file].replace(old, new)
    if new == "return (":
        text = text.replace('form="yes or no")', "1)")
    Path(file).write_text(text)
    others = {} if file == "problems.py" else {"problems": SOURCE}
    recipe = recipe_with(tmp_path, file, **others)
    with pytest.raises(UserError, match=message) as error:
        run_until(kind, recipe, tmp_path)
    assert file in str(error.value)
    assert "\n" not in str(error.value)


def test_a_verdict_that_is_no_verdict_is_one_line(tmp_path):
    text = FILES["answers.py"].replace("found[-1] if found else None", "'yes'")
    Path("answers.py").write_text(text.replace("predicted == gold", "'maybe'"))
    with pytest.raises(UserError, match="answers.py:.* returned str, not bool"):
        run_until("rationales", recipe_with(tmp_path, "answers.py", problems=SOURCE), tmp_path)


def test_an_iterator_of_problems_that_raises_is_one_line(tmp_path):
    Path("problems.py").write_text("def sums(seed, count): return map(int, 'x')\n")
    with pytest.raises(UserError, match="problems.py:sums raised ValueError"):
        run_until("problems", recipe_with(tmp_path, "problems.py"), tmp_path)


def test_code_that_exits_does_not_end_the_command():
    Path("own.py").write_text("import sys\nsys.exit(3)")
    with pytest.raises(UserError, match="own.py:it: own.py cannot be imported: SystemExit: 3"):
        load_own("own.py:it")
    Path("own.py").write_text("import sys\ndef it(*a): sys.exit(3)")
    with pytest.raises(UserError, match="own.py:it raised SystemExit: 3"):
        reward_named("own.py:it")("text", TARGET, count_words)


def test_a_package_that_raises_is_one_line(tmp_path, monkeypatch):
    Path("broken_package").mkdir()
    Path("broken_package/__init__.py").write_text("raise ValueError('no')")
    Path("broken_package/inner.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="broken_package.inner cannot be imported: ValueError: no"):
        load_own("broken_package.inner:it")


@pytest.mark.parametrize(
    "change",
    [
        "stage2.trainer.reward.preset=own.py:it",
        "stage1.examples.masks.kind=own.py:it",
        "problems.answers.kind=own.py:it",
        "problems.source={kind: own, function: 'own.py:it'}",
    ],
)
def test_broken_code_is_found_before_anything_is_computed(change):
    Path("own.py").write_text("1 / 0")
    recipe = load_recipe("demo", [change])
    with pytest.raises(UserError, match="own.py:it: own.py cannot be imported: ZeroDivisionErro"):
        recipe.load_own_code()


def test_two_extensions_of_one_name_are_refused_with_both_places():
    shapes: Registry[Any] = Registry("shape")
    Path("one.py").write_text("def round_one(): ...")
    Path("two.py").write_text("def round_two(): ...")
    shapes.register("round")(load_own("one.py:round_one"))
    shapes.register("round")(load_own("one.py:round_one"))  # the same one again
    with pytest.raises(UserError, match=r"two shapes are named 'round': .*one.py.* and .*two.py"):
        shapes.register("round")(load_own("two.py:round_two"))


def test_a_name_with_a_meaning_of_its_own_cannot_be_registered():
    shapes: Registry[Any] = Registry("shape", "auto")
    with pytest.raises(UserError, match="the shape 'auto' has a meaning of its own; rename it"):
        shapes.register("auto")(int)


@pytest.mark.parametrize("name", ["masks", "stage1.examples.masks"])
def test_an_unknown_name_lists_what_there_is(name):
    if name == "masks":
        from cotpipe.rationale.masks import masks

        with pytest.raises(UserError, match="unknown mask 'odd'; choose one of random, scat"):
            masks.find("odd")
    else:
        with pytest.raises(UserError, match="stage1.examples.masks.kind: unknown mask 'odd'"):
            load_recipe("demo", [f"{name}.kind=odd"])


def test_the_schema_of_the_form_offers_none_of_the_users_code():
    text = str(Recipe.model_json_schema())
    schema = Recipe.model_json_schema()
    kinds = schema["$defs"]["Problems"]["properties"]["source"]["anyOf"]
    assert not [kind for kind in kinds if "OwnSource" in kind["$ref"]]
    assert schema["$defs"]["Masks"]["properties"]["kind"]["enum"][0] == "random"
    assert ".py:" not in text


def test_code_of_the_users_own_is_not_taken_from_a_form(tmp_path, monkeypatch):
    from flows.curriculum import chosen_recipe

    store = open_store(Settings(store=str(tmp_path / "store")))
    recipe = recipe_with(tmp_path, "masks.py")
    assert chosen_recipe(recipe, None, store) == recipe  # the command runs it
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "a-deployment")
    with pytest.raises(
        UserError, match="masks.py:last_steps: code of your own is not accepted in a"
    ):
        chosen_recipe(recipe, None, store)
    from_file = chosen_recipe(Recipe(), str(tmp_path / "recipe.yaml"), store)
    assert list(from_file.own_code()) == ["masks.py:last_steps"]
