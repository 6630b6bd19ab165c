"""Ten thousand hostile model outputs go through parsing, verification and rewards: each has its verdict, in time."""

import random
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cotpipe.data.rows import Problem
from cotpipe.engines.base import as_generated
from cotpipe.rationale.answers import answers_match, extract_answer
from cotpipe.rationale.format import has_valid_format, parse_rationale, until_answer
from cotpipe.rationale.graph import rationale_graph
from cotpipe.rationale.prompts import completion_prompt, rewriting_prompt
from cotpipe.rationale.rewards import Target, recovery_reward, rewrite_reward
from cotpipe.recipe.model import Recipe, Teacher
from cotpipe.steps.verify import judge, row_of

QUESTION, GOLD = "Tom has 3 bags of 4 apples. How many?", "12"
RECIPE = Recipe(teacher=Teacher(engine="openai", model="any"))
PROBLEM = Problem("p", QUESTION, GOLD, [])
STEPS = ["3 x 4 = 12 apples", "So it is 12"]
REASONS = {
    None, "truncated", "no answer", "wrong answer", "no labelled steps", "too few steps", "too many steps",
    "repeats itself",
}  # fmt: skip

FRAGMENTS = [
    "", "\n", "\0", "\x1b[2J", "\u202e", "\ufeff", "\ud800", "🍎", "١٢", "½", "Ⅻ", "－12", "12", "-12", "1,2,3", "1e9", "9**9**9",
    "9" * 500, "0x1F", "NaN", "inf", "Step 1:", "Step 1: 3 x 4 = 12", "Step 99999999999:", "**Step 2:**", "step ٣:", "Answer:",
    "Answer: 12", "Answer: \\boxed{12}", "\\boxed{\\boxed{12}}", "\\boxed{", "}", "\\frac{1}{0}", "#### 12", "####", "<<3*4=12>>",
    "<<", ">>", "<think>", "</think>", "<think>" * 50, "<|im_end|>", "[MASK]", "=", "= 12", "null", "{\"answer\": 12}", "a" * 5000,
    "Step 1: a\n" * 200, "Step 1: a\n" * 4, "(((((((((", "$12", "12 %", "1/3", "12.000000000000000000001", "\r\n", "\t", "Final answer:", "the answer is",
    "the answer is 12", QUESTION, completion_prompt(QUESTION, STEPS)[-1]["content"],
    rewriting_prompt(QUESTION, STEPS, GOLD)[-1]["content"],
]  # fmt: skip


def verdict(text: str, truncated: bool = False) -> tuple:
    """Everything that the pipeline does with what a model wrote."""
    sample = as_generated(text, 7, truncated)
    sample.text.encode()  # what cannot be is written to no table
    judged = judge(PROBLEM, 0, sample, RECIPE)
    assert judged.reason in REASONS
    if judged.reason is None:
        row = row_of(judged)
        assert len(row.uses) == len(row.steps) == len(row.distance) > 1
    target = Target(GOLD, teacher_steps=3, teacher_length=20)
    recovery, rewrite = recovery_reward(text, target), rewrite_reward(text, target)
    assert -2 <= recovery.reward <= 2.2
    assert -2 <= rewrite.reward <= 2
    correct = answers_match(extract_answer(text), GOLD)
    assert (recovery.reward == -2) == (rewrite.reward == -2) == (not correct)
    return judged.reason, correct, has_valid_format(text)


def test_nine_thousand_texts_of_hostile_pieces_have_a_verdict():
    rng = random.Random(4)
    started, seen = time.perf_counter(), set()
    for _ in range(9_000):
        pieces = rng.choices(FRAGMENTS, k=rng.randint(0, 8))
        seen.add(verdict(rng.choice(["", " ", "\n"]).join(pieces), truncated=rng.random() < 0.2))
    assert time.perf_counter() - started < 120
    assert {reason for reason, *_ in seen} >= REASONS
    assert {correct for _, correct, _ in seen} == {valid for *_, valid in seen} == {True, False}


@settings(max_examples=1_000, deadline=2_000, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(st.characters(exclude_categories=[]), max_size=400), st.booleans())
def test_a_thousand_texts_of_every_unicode_class_have_a_verdict(text, truncated):
    verdict(text, truncated)
    parse_rationale(text)
    rationale_graph(text, [text, text], text)


@pytest.mark.parametrize(
    "text",
    [
        "x" * 200_000,
        "9" * 200_000,
        "Answer: " + "9" * 200_000,
        "Step 1: " + "ab " * 70_000 + "\nAnswer: 12",
        "\n" * 200_000,
        "Step 1: a\n" * 20_000 + "Answer: 12",
        "\\boxed{" * 30_000 + "12" + "}" * 30_000,
        "<think>" * 30_000,
        "</think>" * 30_000,
        "Answer: " * 25_000,
        "answer:" + " " * 200_000 + "12",
        "<<" * 100_000,
        "****" * 50_000,
        "- " * 100_000,
        "1," * 100_000,
        "1/" * 100_000,
        "=" * 200_000,
        "-\u2212" * 100_000,
    ],
    ids=lambda text: f"{text[:9]!r}",
)
def test_two_hundred_kilobytes_on_one_line_take_no_time(text):
    started = time.perf_counter()
    verdict(text)
    until_answer(text)
    assert time.perf_counter() - started < 2
