"""The student step: where the student ends its answers, and what counts as another student."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, GenerationConfig

from cotpipe.errors import UserError
from cotpipe.rationale.prompts import question_prompt
from cotpipe.rationale.turns import prompt_tokens, target_tokens
from cotpipe.recipe.files import load_recipe
from cotpipe.steps.step import reference_of
from cotpipe.steps.student import STEP, fetch_student
from cotpipe.steps.teacher import teacher_identity
from tests.helpers.tokenizers import SHAPES, Shape, save_model

TARGET = "Step 1: 3 + 4 = 7\nAnswer: 7"


def fetched(model: Path, output: Path) -> Path:
    """The student that the step makes of a local model."""

    class Work:
        recipe = load_recipe("demo", [f"student.model={model}"])

    work: Any = Work()
    work.output = output
    fetch_student(work)
    return output / "model"


@pytest.mark.parametrize("name", SHAPES)
def test_every_student_sees_its_end_token_after_every_target(name, tmp_path):
    shape = SHAPES[name]
    tokenizer = AutoTokenizer.from_pretrained(
        fetched(save_model(shape, tmp_path), tmp_path / "out")
    )
    prompt = question_prompt("3 + 4?", "Solve step by step.")
    tokens, mask = target_tokens(tokenizer, prompt, TARGET)
    learnt = [token for token, counts in zip(tokens, mask, strict=True) if counts]
    assert tokenizer.eos_token == shape.end
    assert tokenizer.decode(learnt).strip().endswith(TARGET + shape.end)
    asked = prompt_tokens(tokenizer, prompt)
    assert tokens[: len(asked)] == asked, "a question is asked as it was trained"
    assert mask == [0] * len(asked) + [1] * (len(tokens) - len(asked))
    text = tokenizer.decode(asked)
    assert "Solve step by step." in text
    assert "3 + 4?" in text
    assert tokenizer.pad_token is not None


def test_a_base_student_still_ends_where_its_pretraining_ends_a_text(tmp_path):
    base = save_model(SHAPES["Qwen2.5 base"], tmp_path)
    student = fetched(base, tmp_path / "out")
    assert GenerationConfig.from_pretrained(student).eos_token_id == [0, 2]
    assert AutoTokenizer.from_pretrained(student).eos_token_id == 2


def test_a_student_that_could_not_learn_to_stop_is_refused(tmp_path):
    endless = "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    model = save_model(Shape(endless, ("<|endoftext|>",), "<|endoftext|>", ""), tmp_path)
    with pytest.raises(UserError, match=r"no special token.*write \{\{ eos_token \}\} after"):
        fetched(model, tmp_path / "out")


def test_a_student_without_template_and_end_token_is_refused(tmp_path):
    model = save_model(Shape(None, ("<unk>",), None, ""), tmp_path)
    with pytest.raises(UserError, match="could not learn where to stop"):
        fetched(model, tmp_path / "out")


@pytest.mark.parametrize(
    "name", ["chat_template.jinja", "tokenizer.json", "generation_config.json", "model.safetensors"]
)
def test_whatever_is_loaded_of_a_local_model_makes_it_another_one(name, tmp_path):
    model = save_model(SHAPES["SmolLM2"], tmp_path)
    recipe = load_recipe(
        "demo",
        [f"student.model={model}", "teacher.engine=transformers", f"teacher.model={model}"],
    )
    student, teacher = reference_of(STEP, recipe, {}), teacher_identity(recipe)
    (model / "README.md").write_text("For people")
    assert (reference_of(STEP, recipe, {}), teacher_identity(recipe)) == (student, teacher)
    with (model / name).open("ab") as file:
        file.write(b" ")
    assert reference_of(STEP, recipe, {}) != student
    assert teacher_identity(recipe) != teacher


@pytest.mark.parametrize("package", [".x", "a.b", "json", "no_such_package"])
def test_a_wheel_that_is_no_package_is_one_line(package):
    recipe = load_recipe("demo", [f"student.model=wheel:{package}"])
    with pytest.raises(UserError, match=f"the Python package '{package}' is not installed or has"):
        reference_of(STEP, recipe, {})
