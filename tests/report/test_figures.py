"""All figures of an evaluation, from a few answers that are written out."""

import pytest

from cotpipe.data.rows import Answered
from cotpipe.errors import UserError
from cotpipe.report.figures import Evaluated, figures_of, require_same_questions

LOOP = "Step 1: 2 + 2 = 4, and " + "so on, " * 20


def answered(problem: str, text: str, predicted: str | None, tokens: int, **changes) -> Answered:
    row: dict = {
        "problem_id": problem,
        "sample": 0,
        "question": f"{problem}?",
        "answer": "4",
        "completion": text,
        "predicted": predicted,
        "correct": predicted == "4",
        "valid_format": "Answer:" in text,
        "num_tokens": tokens,
        "truncated": False,
    }
    return Answered(**row | changes)


GREEDY = [
    answered("a", "Step 1: x\nAnswer: 4", "4", 10),
    answered("b", "Step 1: x\nAnswer: 5", "5", 20),
    answered("c", LOOP, None, 90, truncated=True),
    answered("d", "Answer: 4", "4", 20),
]
BRIEF = [
    answered(row.problem_id, row.completion, row.predicted, row.num_tokens // 2) for row in GREEDY
]


def values(*evaluated, ks=(), num_steps=None) -> dict:
    found = figures_of(evaluated, ks, lambda one, other, question: one == other, num_steps or {})
    return {(one.group, one.name, one.of): one for one in found}


def test_what_one_checkpoint_does():
    found = values(Evaluated("it", GREEDY), num_steps={"a": 2, "b": 2, "c": 12, "d": 10})
    told = {(group, name): (one.value, one.problems) for (group, name, _), one in found.items()}
    assert told == {
        ("greedy", "accuracy"): (0.5, 4),
        ("greedy", "valid format"): (0.75, 4),
        ("greedy", "cut off"): (0.25, 4),
        ("greedy", "ends in a loop"): (0.25, 4),
        ("greedy", "without an answer"): (0.25, 4),
        ("tokens of an answer", "mean"): (35, 4),
        ("tokens of an answer", "median"): (20, 4),
        ("tokens of an answer", "90 % are at most"): (90, 4),
        ("tokens of an answer", "mean of right answers"): (15, 2),
        ("tokens of an answer", "mean of wrong answers"): (55, 2),
        ("accuracy by steps of the rationale", "2"): (0.5, 2),
        ("accuracy by steps of the rationale", "9 and more"): (0.5, 2),
    }
    assert {one.model for one in found.values()} == {"it"}


def test_a_checkpoint_against_itself_differs_in_nothing():
    one = Evaluated("it", GREEDY, {row.problem_id: [row] for row in GREEDY})
    found = values(one, one, ks=[1])
    differences = [figure for (*_, side), figure in found.items() if side == "difference"]
    assert len(differences) > 10
    assert {figure.value for figure in differences} == {0}
    assert {figure.p_value for figure in differences} == {None, 1}
    by_rate = {name: one.value for (group, name, _), one in found.items() if "how often" in group}
    assert by_rate == {"never": 0, "always": 1}


def test_p_values_are_corrected_for_the_number_of_tests():
    rows = [answered(f"{number}", "Answer: 4", "4", 10) for number in range(12)]
    wrong = [answered(row.problem_id, "Answer: 5", "5", 10) for row in rows]
    found = values(Evaluated("right", rows), Evaluated("wrong", wrong))
    tests = [figure for figure in found.values() if figure.p_value is not None]
    # McNemar's exact test gives 2 / 2^12 twice: overall, and within the one budget of 10 tokens.
    assert min(figure.p_value for figure in tests) == pytest.approx(len(tests) * 2 / 2**12)


def test_half_the_tokens_are_half_the_budget():
    found = values(Evaluated("long", GREEDY), Evaluated("brief", BRIEF))
    needed = {
        (name, side): one.value
        for (group, name, side), one in found.items()
        if group == "tokens needed for an accuracy"
    }
    assert needed["50.0 %", "first"] == 20
    assert needed["50.0 %", "second"] == 10
    assert needed["50.0 %", "difference"] == 10


def test_other_problems_are_refused():
    with pytest.raises(UserError, match="other problems: 3, of which 3 are among the 4 of it"):
        require_same_questions(Evaluated("it", GREEDY), Evaluated("other", BRIEF[:3]))
    changed = [*GREEDY[:3], answered("d", "", None, 1, question="another?")]
    with pytest.raises(UserError, match="4, of which 3"):
        require_same_questions(Evaluated("it", GREEDY), Evaluated("other", changed))
