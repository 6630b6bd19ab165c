"""Completions are scored by the recipe's kind of answers, which may need the question."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from cotpipe.data.rows import Example
from cotpipe.rationale.answers import answer_kind
from cotpipe.rationale.prompts import completion_prompt
from cotpipe.recipe.model import Recipe
from cotpipe.recipe.trainers import Grpo
from cotpipe.training.job import Job
from cotpipe.training.scoring import Scorer, is_right

COMPLETIONS = [
    (
        "choice",
        "B",
        ["B", "(b)", "dark blue", "B) dark blue"],
        ["A", "red", "A or B", "B) red", "blue"],
    ),
    ("math", r"\frac{1}{2}", ["0.5", "2/4", r"\sqrt{1/4}"], ["2", "half"]),
    ("exact", "Paris", ["paris", "PARIS."], ["Lyon", "Paris, France"]),
    ("number", "1250", ["$1,250.00"], ["125", "seven"]),
]


@pytest.mark.parametrize(("kind", "gold", "right", "wrong"), COMPLETIONS)
def test_right_and_wrong_answers_of_every_kind(kind, gold, right, wrong, tiny_student):
    stage = Recipe().stage("stage2")
    assert isinstance(stage.trainer, Grpo)
    job = Job(
        stage=stage, answers=kind, student=tiny_student, examples=Path("e"), output=Path("o"),
        work=Path("w"), seed=1, training_state_seconds=60,
    )  # fmt: skip
    scorer = Scorer(job, stage.trainer, AutoTokenizer.from_pretrained(tiny_student))
    question = "Which colour?\nA) red\nB) dark blue"
    steps = ["A) or B) is right.", "B) it is."]
    prompt = completion_prompt(question, [steps[0], None])
    example = Example("p", 0, prompt, "", [1], gold, steps, 9)
    texts = [f"Step 1: So.\nAnswer: {said}" for said in (*right, *wrong)]
    parts = scorer.group(texts, [9] * len(texts), example, brevity=False)
    expected = [True] * len(right) + [False] * len(wrong)
    assert [part.correct for part in parts] == expected
    assert [part.reward > 0 for part in parts] == expected
    assert [is_right(text, example, answer_kind(kind)) for text in texts] == expected
