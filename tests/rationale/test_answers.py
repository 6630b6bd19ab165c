import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotpipe.rationale.answers import answers_match, extract_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("1,250", "1250"),
        ("-10", "-10"),
        ("$18.50", "18.50"),
        (r"\boxed{72}", "72"),
        ("5/8", "5/8"),
        ("72 clips.", "72"),
        ("**72**", "72"),
        ("#### 72", "72"),
        ("#### 1,250", "1250"),
        ("#### -10", "-10"),
        ("Answer: $1,200", "1200"),
        ("Answer: \u221210", "-10"),
        ("**Answer:** 72", "72"),
        ("**Final Answer**\n\\[\n\\boxed{68}\n\\]", "68"),
        (r"Answer: \boxed{\frac{5}{8}}", "5/8"),
        (r"\[\boxed{\$2,\!500.00}\]", "2500.00"),
        ("Answer: 1 1/2", "1 1/2"),
        ("Answer: 5 + 3 = 8", "8"),
        ("Answer: 3 apples and 4 pears", "3"),
        ("Answer: she has 12 left", "12"),
        ("Answer:\n72", "72"),
        ("Answer: 5\nno, wait\nAnswer: 7", "7"),
        ("so the answer is 7.", "7"),
        ("first 3, then 4", "4"),
        ("Answer: 50%", "50"),
        ("Answer: 1e3", "1e3"),
        ("Answer: none", None),
        ("Answer: 9**9**9**9", None),
        ("Answer: 5 + 3", None),
        ("Answer: 10-12", None),
        ("Answer: 5/0", None),
        ("48 + 24 = 72\nAnswer: unknown", None),
        ("no number", None),
        ("", None),
    ],
)
def test_extracts(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("predicted", "gold", "match"),
    [
        ("72", "72.00", True),
        ("1250", "1,250", True),
        ("0.625", "5/8", True),
        ("1 1/2", "1.5", True),
        ("-1 1/2", "-1.5", True),
        ("-10", "10", False),
        ("0.3333333", "1/3", True),
        ("0.33", "1/3", False),
        ("2880001", "2880000", False),
        ("2,879,999", "2,880,000", False),
        ("2880000.004", "2880000", True),
        ("2880000.5", "2880000", False),
        ("10000000000001", "10000000000000", False),
        ("2880000.00", "2880000", True),
        ("1e9", "1000000001", False),
        ("72", "73", False),
        (None, "72", False),
        ("seven", "7", False),
        ("7", "seven", False),
        ("0", "0", True),
        ("1e3", "1000", True),
    ],
)
def test_compares(predicted, gold, match):
    assert answers_match(predicted, gold) is match


@given(st.text())
def test_any_text_has_a_verdict(text):
    answer = extract_answer(text)
    assert answer is None or answers_match(answer, answer)


@given(
    st.integers(-(10**12), 10**12),
    st.sampled_from(["{}", "Answer: {}", "#### {}", r"\boxed{{{}}}", "Answer: {} cm"]),
)
def test_integers_survive_every_form(value, form):
    assert extract_answer(form.format(f"{value:,}")) == str(value)


@pytest.mark.parametrize(
    "text",
    [
        "7" * 10_000_000,
        "Answer: " + "7" * 10_000_000,
        "1," * 3_000_000,
        "Answer: " * 1_000_000,
        r"\boxed{" * 1_000_000,
        "9**9**9**9",
        "-" * 5_000_000 + "1",
        "\n" * 5_000_000,
        "*_`" * 2_000_000,
    ],
    ids=lambda text: text[:8],
)
def test_hostile_texts_are_bounded_in_time(text):
    started = time.monotonic()
    answers_match(extract_answer(text), "7")
    assert time.monotonic() - started < 2
