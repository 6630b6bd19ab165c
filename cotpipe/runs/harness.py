"""A recipe's held-out problems as a task of lm-evaluation-harness, for an outside judge.

Prompts are written out as the checkpoint's chat template renders them, so nothing depends on how the
harness is called; end tokens, greedy decoding and the length limit are in the task.
"""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from cotpipe.data.rows import Lesson
from cotpipe.engines.base import Model, PromptTooLongError, Request, end_tokens, tokens_of
from cotpipe.engines.served import Served
from cotpipe.errors import UserError
from cotpipe.rationale.prompts import question_prompt
from cotpipe.rationale.turns import prompt_text
from cotpipe.recipe.model import Recipe
from cotpipe.runs import harness_judge
from cotpipe.runs.checkpoints import find_checkpoint
from cotpipe.runs.evaluation import read_questions
from cotpipe.steps.evaluate import greedy
from cotpipe.steps.runner import StepRunner

_TOP = """\
# The held-out problems of the recipe {name}, written by cotpipe evaluate --lm-eval for lm-evaluation-harness.
# The prompts are whole: leave out --apply_chat_template, --system_instruction and --num_fewshot.
#
#   {command}
#
# `correct` needs cotpipe beside lm_eval: it is the recipe's own judgement. `exact_match` does not know it.
"""


def write_harness_task(folder: Path, model: str, runner: StepRunner, recipe: Recipe) -> str:
    """Write `task.yaml`, `problems.jsonl`, `judge.py` and `recipe.json` to a folder, and nothing else.

    Args:
        folder: Where to; made if it is not there.
        model: The checkpoint, as `find_checkpoint` takes it. Its chat template writes the prompts.
        runner: Reads the problems and the model.
        recipe: The recipe.

    Returns the command that evaluates the checkpoint with the task, in the number format in which this
    machine evaluates: where two next tokens are nearly as probable, another one decides otherwise.
    Raises `UserError` for a served model, and where nothing can be written.
    """
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    from cotpipe.hardware.devices import fast_dtype

    _, lessons = read_questions(runner, recipe)
    checkpoint = find_checkpoint(model, runner, recipe)
    if isinstance(checkpoint, Served):
        raise UserError(
            f"--lm-eval: {model} is a server; give the checkpoint itself, whose chat template writes "
            "the prompts"
        )
    path = runner.store.path(runner.store.require(checkpoint), "model")
    tokenizer = AutoTokenizer.from_pretrained(path)
    context = AutoConfig.from_pretrained(path).max_position_embeddings
    rows = _rows(lessons, recipe, tokenizer, context)
    ends = end_tokens(GenerationConfig.from_pretrained(path), tokenizer)
    name = "cotpipe_" + re.sub(r"\W", "_", f"{recipe.name}_{recipe.evaluation.split}")
    dtype = str(fast_dtype(runner.settings.precision)).removeprefix("torch.")
    command = (
        f"lm_eval --model hf --model_args pretrained={path},dtype={dtype},add_bos_token=False "
        f"--include_path {folder} --tasks {name} --batch_size 16 --log_samples "
        f"--output_path {folder}/results"
    )
    task = _task(name, recipe, [str(tokenizer.decode([end])) for end in sorted(ends)])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        top = _TOP.format(name=recipe.name, command=command)
        (folder / "task.yaml").write_text(top + task, encoding="utf-8")
        (folder / "problems.jsonl").write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
        )
        (folder / "recipe.json").write_text(recipe.model_dump_json(indent=2), encoding="utf-8")
        shutil.copy(harness_judge.__file__, folder / "judge.py")
    except OSError as error:
        raise UserError(f"--lm-eval: {folder}: cannot be written: {error.strerror}") from error
    return command


def _rows(
    lessons: Sequence[Lesson], recipe: Recipe, tokenizer: Any, context: int
) -> list[dict[str, Any]]:
    """A row per problem; `fits` is false where the prompt is too long, which counts as wrong."""
    rows = []
    for lesson in lessons:
        prompt = question_prompt(lesson.question, recipe.instruction)
        request = Request(lesson.problem_id, prompt)
        fits = True
        try:
            tokens_of(request, greedy(recipe), Model("the checkpoint"), tokenizer, context)
        except PromptTooLongError:
            fits = False
        rows.append(
            {
                "problem_id": lesson.problem_id,
                "question": lesson.question,
                "answer": lesson.answer,
                "prompt": prompt_text(tokenizer, prompt),
                "fits": fits,
            }
        )
    return rows


def _task(name: str, recipe: Recipe, ends: list[str]) -> str:
    """The task in YAML; the functions are named by tags of the harness."""
    metric = {"aggregation": "mean", "higher_is_better": True}
    task = {
        "task": name,
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "prompt",
        "doc_to_target": "answer",
        "target_delimiter": "",
        "num_fewshot": 0,
        "generation_kwargs": {
            "until": ends,
            "do_sample": False,
            "temperature": 0.0,
            "max_gen_toks": recipe.evaluation.max_new_tokens,
        },
        "metric_list": [{"metric": one} | metric for one in ("correct", "exact_match")],
        "metadata": {"version": 1.0},
    }
    functions = "custom_dataset: !function judge.problems\nprocess_results: !function judge.process_results\n"
    return yaml.safe_dump(task, sort_keys=False, allow_unicode=True) + functions
