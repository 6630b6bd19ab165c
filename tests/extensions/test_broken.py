"""Extensions that are broken: one line that names file and function."""

from pathlib import Path

import pytest

from cotpipe.errors import UserError
from cotpipe.extensions import load_own, own_identity
from cotpipe.rationale.lengths import count_words
from cotpipe.rationale.rewards import Target, reward_named
from cotpipe.recipe.files import load_recipe
from tests.helpers.extensions import FILES, SOURCE, recipe_with, run_until, train_with_the_reward


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
            "return dict(",
            "problems",
            "returned dict, not AnswerKind",
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


def test_a_source_without_problems_is_one_line(tmp_path):
    Path("problems.py").write_text("def sums(seed, count): return []\n")
    with pytest.raises(UserError, match="problems.source gives no problems"):
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


def test_a_reward_that_raises_in_training_is_one_line(tmp_path, tiny_student):
    Path("rewards.py").write_text("def terse(completion, target, length):\n    return 1 / 0\n")
    with pytest.raises(UserError, match=r"rewards.py:terse raised ZeroDivisionError: .*by zero"):
        train_with_the_reward(tmp_path, tiny_student)
