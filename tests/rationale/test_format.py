import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotpipe.rationale.answers import answers_match, extract_answer
from cotpipe.rationale.format import (
    format_rationale,
    has_valid_format,
    parse_rationale,
)


@pytest.mark.parametrize(
    ("text", "steps", "answer"),
    [
        ("Step 1: a\nStep 2: b\nAnswer: 72", ["a", "b"], "72"),
        (
            "Thinking…\nhm, 5?\nStep 1: a = 1\nStep 2: b \\[ x \\] Answer: 72",
            ["a = 1", "b \\[ x \\]"],
            "72",
        ),
        ("**Step 1:** a\n**Step 2:** b\n\n**Answer:** 7", ["a", "b"], "7"),
        ("### Step 1. a\nmore of a\n### Step 2. b\n#### 9", ["a more of a", "b"], "9"),
        (
            "48/2 = <<48/2=24>>24 clips\n48+24 = 72\n#### 72",
            ["48/2 = 24 clips", "48+24 = 72"],
            "72",
        ),
        ("just words", ["just words"], None),
        ("", [], None),
    ],
)
def test_parses(text, steps, answer):
    rationale = parse_rationale(text)
    assert (rationale.steps, rationale.answer) == (steps, answer)


plain_steps = st.lists(
    st.from_regex(r"[a-z][a-z0-9 +=]{0,30}[a-z0-9]", fullmatch=True), min_size=1, max_size=8
)


@given(plain_steps, st.integers(-10_000, 10_000))
def test_what_is_written_is_read_back(steps, answer):
    steps = [" ".join(step.split()) for step in steps]
    text = format_rationale(steps, str(answer))
    rationale = parse_rationale(text)
    assert rationale.steps == [step for step in steps if "answer" not in step] or "answer" in text
    assert rationale.answer == str(answer)
    assert has_valid_format(text)


@given(st.text(st.characters(exclude_categories=[])))
def test_no_text_raises(text):
    parse_rationale(text)
    has_valid_format(text)


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("Step 1: a\nAnswer: 3", True),
        ("Step 1: a", False),
        ("Answer: 3", False),
        ("Answer: 3\nStep 1: a", False),
        ("a\n1. b\nAnswer: 3", False),
        ("Step 1:\nAnswer: 3", False),
    ],
)
def test_valid_format(text, valid):
    assert has_valid_format(text) is valid


def test_real_teacher_rationales(real_data):
    path = real_data / "teacher_cot" / "deepseek_r1_distill_qwen_14b_gsm8k.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    parsed = [parse_rationale(row["rationale"]) for row in rows]
    good = [
        len(one.steps) >= 2 and answers_match(one.answer, row["answer"])
        for one, row in zip(parsed, rows, strict=True)
    ]
    assert len(rows) == 400
    assert sum(good) >= 0.98 * len(rows)


def test_every_gold_answer_of_gsm8k(real_data):
    lines = (real_data / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    answers = [json.loads(line)["answer"] for line in lines]
    stated = [answer.split("####")[1].strip().replace(",", "") for answer in answers]
    assert [extract_answer(answer) for answer in answers] == stated
