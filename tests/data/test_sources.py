import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cotpipe.data.problems import Reading
from cotpipe.data.problems.arithmetic import ArithmeticSource
from cotpipe.data.problems.files import FileSource
from cotpipe.data.problems.gym import GymSource
from cotpipe.data.rows import Problem, Reject
from cotpipe.errors import UserError
from cotpipe.rationale.answers import CHOICE
from cotpipe.rationale.format import parse_rationale

ROWS = [
    {"question": "How many?", "answer": "1 + 1 = 2\n#### 2"},
    {"question": "And now?", "answer": "#### 1,250"},
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path, **options):
    return list(FileSource(path=str(path), **options).read(Reading(seed=1)))


def test_jsonl_parquet_and_csv_give_the_same_problems(tmp_path):
    jsonl = write(tmp_path / "p.jsonl", ROWS)
    pd.DataFrame(ROWS).to_parquet(tmp_path / "p.parquet")
    pd.DataFrame(ROWS).to_csv(tmp_path / "p.csv", index=False)
    problems = read(jsonl)
    assert [(row.answer, row.rationales) for row in problems] == [
        ("2", [ROWS[0]["answer"]]),
        ("1250", ["#### 1,250"]),
    ]
    assert problems == read(tmp_path / "p.parquet") == read(tmp_path / "p.csv")


def test_columns_are_mapped_and_the_test_file_is_held_out(tmp_path):
    train = write(tmp_path / "a.jsonl", [{"q": "x?", "gold": "3", "why": "1 + 2 = 3", "key": "k1"}])
    test = write(tmp_path / "b.jsonl", [{"q": "y?", "gold": "4", "why": "", "key": "k2"}])
    options = {
        "question_column": "q",
        "answer_column": "gold",
        "rationale_column": "why",
        "id_column": "key",
    }
    assert read(train, test_path=str(test), **options) == [
        Problem("k1", "x?", "3", ["1 + 2 = 3"]),
        Problem("k2", "y?", "4", [], "test"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no rows"),
        ("\n\n", "has no rows"),
        (
            '{"question": "x", "answer": "1"}\n' * 16 + '{"question": "x", \n',
            "line 17: invalid JSON",
        ),
        (
            '{"question": "x", "reply": "1"}\n',
            "line 1: column 'answer' is missing.*question, reply.*answer_column|problems.source",
        ),
        ("[1, 2]\n", "line 1: expected a JSON object"),
    ],
)
def test_broken_files_are_named_with_line_and_way_out(tmp_path, content, message):
    path = tmp_path / "p.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as error:
        read(path)
    assert str(path) in str(error.value)


def test_other_bad_files(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read(tmp_path / "none.jsonl")
    (tmp_path / "p.txt").write_text("x")
    with pytest.raises(UserError, match=r"unsupported file type '.txt'"):
        read(tmp_path / "p.txt")
    (tmp_path / "p.parquet").write_text("not parquet")
    with pytest.raises(UserError, match="cannot be read as parquet"):
        read(tmp_path / "p.parquet")
    (tmp_path / "p.csv").write_text("")
    with pytest.raises(UserError, match="has no rows"):
        read(tmp_path / "p.csv")


def test_two_problems_with_one_id(tmp_path):
    path = write(tmp_path / "p.jsonl", [{"question": q, "answer": "1", "id": "same"} for q in "ab"])
    with pytest.raises(UserError, match=r"line 2: id 'same' was already used at .*line 1"):
        read(path, id_column="id")


def test_unusable_rows_become_rejects(tmp_path):
    rows = [{"question": "a", "answer": "blue"}, {"question": "", "answer": "1"}, *ROWS, ROWS[0]]
    result = read(write(tmp_path / "p.jsonl", rows))
    assert [row.reason for row in result if isinstance(row, Reject)] == [
        "gold answer is no number",
        "empty question",
        "repeated question",
    ]


def test_gsm8k_itself(real_data):
    problems = read(real_data / "gsm8k" / "train.jsonl")
    assert len(problems) == 7473
    assert all(isinstance(row, Problem) and row.rationales for row in problems)


def test_reasoning_gym_carries_rationales():
    problems = list(GymSource(num_problems=5).read(Reading(seed=3)))
    assert problems == list(GymSource(num_problems=5).read(Reading(seed=3)))
    assert all(len(parse_rationale(row.rationales[0]).steps) >= 2 for row in problems)
    with pytest.raises(UserError, match="no generator 'nonsense'"):
        list(GymSource(dataset="nonsense").read(Reading(seed=3)))


def test_generated_problems_are_right_reproducible_and_within_bounds():
    source = ArithmeticSource(num_problems=300, num_rationales=4)
    problems = list(source.read(Reading(seed=5)))
    assert problems == list(source.read(Reading(seed=5)))
    assert len({row.question for row in problems}) == 300
    lengths = set()
    for problem in problems:
        for text in problem.rationales:
            rationale = parse_rationale(text)
            assert rationale.answer == problem.answer
            lengths.add(len(text.split()))
        numbers = [
            int(word) for word in problem.question.replace(".", " ").split() if word.isdigit()
        ]
        assert 3 <= len(numbers) <= 5
        assert max(numbers) <= 100
    assert max(lengths) > 3 * min(lengths)


def test_every_equation_of_a_generated_rationale_holds_and_uses_the_one_before():
    import re

    for problem in ArithmeticSource(num_problems=200, num_rationales=2).read(Reading(seed=9)):
        for text in problem.rationales:
            found = re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", text)
            assert 2 <= len(found) <= 4
            previous = None
            for left, operator, right, result in found:
                value = {
                    "+": lambda a, b: a + b,
                    "-": lambda a, b: a - b,
                    "*": lambda a, b: a * b,
                    "/": lambda a, b: a / b,
                }
                assert value[operator](int(left), int(right)) == int(result)
                assert previous in (None, left)
                previous = result
            assert previous == problem.answer


@pytest.mark.parametrize(
    ("choices", "answer"),
    [
        (["red", "dark blue", "green"], "B"),
        (["red", "dark blue", "green"], 1),
        (["red", "dark blue", "green"], "dark blue"),
        (["A)red", "B)dark blue", "C)green"], "B"),
        ({"text": ["red", "dark blue", "green"], "label": ["A", "B", "C"]}, "B"),
        ({"text": ["red", "dark blue", "green"], "label": ["1", "2", "3"]}, "2"),
        ({"A": "red", "B": "dark blue", "C": "green"}, "B"),
    ],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_options_of_every_form_are_listed_below_the_question(choices, answer, suffix, tmp_path):
    row = {"question": "Which?", "answer": answer, "choices": choices}
    path = tmp_path / f"a{suffix}"
    if suffix == ".jsonl":
        write(path, [row])
    else:
        pq.write_table(pa.Table.from_pylist([row]), path)
    source = FileSource(path=str(path), choices_column="choices")
    (problem,) = source.read(Reading(0, CHOICE))
    assert problem.question == "Which?\nA) red\nB) dark blue\nC) green"
    assert problem.answer == "B"


@pytest.mark.parametrize(
    ("choices", "answer", "reason"),
    [
        (["red"], "A", "not two to five options"),
        (None, "A", "not two to five options"),
        ("red, blue", "A", "not two to five options"),
        (list("abcdef"), "A", "not two to five options"),
        (["red", "blue"], "C", "gold answer is no letter"),
        (["red", "blue"], 2, "gold answer is no letter"),
        (["red", "blue"], -1, "gold answer is no letter"),
        (["red", "red"], "red", "gold answer is no letter"),
        (["red", "blue"], True, "gold answer is no letter"),
    ],
)
def test_options_that_are_none_and_answers_that_name_none_are_rejects(
    choices, answer, reason, tmp_path
):
    path = write(
        tmp_path / "a.jsonl", [{"question": "Which?", "answer": answer, "choices": choices}]
    )
    (reject,) = FileSource(path=str(path), choices_column="choices").read(Reading(0, CHOICE))
    assert reject.reason == reason
