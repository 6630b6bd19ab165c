"""The command as its users meet it: its output and its exit status."""

import json
import subprocess
from collections.abc import Callable

import pytest

from tests.helpers.flow_runs import assert_one_line_error, cotpipe, cotpipe_process

PUBLISHED = [
    {
        "completion": "Step 1: a\nAnswer: 72",
        "answer": "72",
        "teacher_steps": 4,
        "teacher_words": 100,
        "note": "kept",
    },
    {"completion": "Answer: 71", "answer": "72", "teacher_steps": 4, "teacher_words": 100},
]


@pytest.mark.parametrize(
    ("reward", "rewards"), [("recovery", [1 + 0.9 + 0.107, -2.0]), ("rewrite", [1.8, -2.0])]
)
def test_score_adds_the_reward_and_its_parts(tmp_path, reward, rewards):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in PUBLISHED))
    done = cotpipe("score", "--reward", reward, str(source), str(target))
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert [row["reward"] for row in rows] == pytest.approx(rewards)
    assert rows[0]["note"] == "kept"
    assert {"correct", "valid_format", "base", "brevity_steps", "length"} <= rows[0].keys()


def test_score_takes_the_kind_of_answers(tmp_path):
    (tmp_path / "answers.py").write_text(
        "from cotpipe.rationale.answers import AnswerKind\n"
        "def word(): return AnswerKind(form='word', match=lambda answer, gold, _: answer == gold)\n"
    )
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(
        json.dumps(PUBLISHED[0] | {"completion": "Step 1: a\nAnswer: yes", "answer": "yes"})
    )
    kind = f"{tmp_path / 'answers.py'}:word"
    done = cotpipe("score", "--reward", "rewrite", "--answers", kind, str(source), str(target))
    assert done.returncode == 0, done.stderr
    assert json.loads(target.read_text())["correct"]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ["has no rows"]),
        (json.dumps(PUBLISHED[0]) + "\n{broken\n", ["line 2"]),
        ('{"completion": "x", "answer": "1", "teacher_steps": 2}\n', ["line 1", "teacher_words"]),
        (
            '{"completion": "x", "answer": "1", "teacher_steps": 0, "teacher_words": 1}\n',
            ["teacher_steps"],
        ),
    ],
)
def test_score_refuses_bad_input(tmp_path, content, parts):
    source = tmp_path / "in.jsonl"
    source.write_text(content)
    done = cotpipe("score", "--reward", "recovery", str(source), str(tmp_path / "out.jsonl"))
    assert_one_line_error(done, 2, str(source), *parts)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--recipe", "nothing"], ["'nothing'", "demo"]),
        (["--set", "stage9.x=1"], ["stage9: unknown key"]),
        (["--set", "stage2.trainer.group_size=one"], ["stage2.trainer.group_size", "'one'"]),
    ],
)
def test_run_refuses_a_bad_recipe_before_prefect_is_loaded(arguments, parts):
    assert_one_line_error(cotpipe("run", *arguments), 2, *parts)


@pytest.fixture
def run_with(prefect, tmp_path) -> Callable[..., subprocess.CompletedProcess]:
    """Runs the demo with some settings changed, on the session's server: a server of its own takes long to start."""

    def run(*settings: str) -> subprocess.CompletedProcess:
        options = [option for setting in settings for option in ("--set", setting)]
        store = str(tmp_path / "store")
        return cotpipe_process("run", "--store", store, *options, PREFECT_API_URL=prefect)

    return run


def test_run_names_file_and_line_of_broken_data(run_with, tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"question": "x", "answer": "1"}\n' * 16 + "{broken\n")
    done = run_with(f"problems.source={{kind: file, path: {path}}}")
    assert_one_line_error(done, 2, str(path), "line 17", "invalid JSON")


def test_run_refuses_a_student_that_is_no_model(run_with, tmp_path):
    (tmp_path / "empty").mkdir()
    done = run_with(f"student.model={tmp_path / 'empty'}", "problems.source.num_problems=40")
    assert_one_line_error(done, 2, "student.model", "is neither a hub id", "config.json")
    assert not (tmp_path / "store" / "problems").exists()  # told before anything is done


def test_too_many_unusable_rows_fail_the_step(run_with, tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"question": "a", "answer": "red"}\n{"question": "b", "answer": "2"}\n')
    done = run_with(f"problems.source={{kind: file, path: {path}}}")
    assert_one_line_error(
        done,
        2,
        "1 of 2 rows were rejected",
        "gold answer is no number",
        "problems.max_rejected_share",
    )


def test_run_refuses_an_empty_held_out_split(run_with, tiny_student):
    shares = "{stage1: 0.5, stage2: 0.4, mining: 0.1, validation: 0, test: 0}"
    settings = [
        f"student.model={tiny_student}",
        "problems.source.num_problems=40",
        f"problems.splits={shares}",
    ]
    assert_one_line_error(
        run_with(*settings), 2, "evaluation.split", "'test'", "problems.splits.test"
    )


def test_debug_shows_the_traceback():
    done = cotpipe_process("--debug", "run", "--recipe", "nothing")
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_a_store_that_is_a_file_is_refused(run_with, tmp_path):
    (tmp_path / "store").write_text("a file, not a folder")
    assert_one_line_error(run_with("problems.source.num_problems=40"), 2, "store", "COTPIPE_STORE")


def test_sql_shows_its_tables_where_nothing_is_stored_yet(tmp_path):
    store = ("--store", str(tmp_path / "store"))
    done = cotpipe("sql", "--tables", *store)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("problems  A question with a verifiable gold answer")
    assert "    kind varchar, fingerprint varchar, problem_id varchar, " in lines[1]
    assert "rationales varchar[]" in lines[1]
    shown = {
        first.split()[0]: second for first, second in zip(lines[::2], lines[1::2], strict=True)
    }
    assert {"evaluations", "runs", "run_steps", "artifacts"} <= shown.keys()
    for name in ("results", "runs"):
        asked = cotpipe_process("sql", f"from {name}", "--csv", *store).stdout.strip()
        assert asked.split(",") == [column.split()[0] for column in shown[name].split(", ")]


def test_sql_without_a_query_says_what_to_write():
    assert_one_line_error(cotpipe("sql"), 2, "--tables")
    assert_one_line_error(cotpipe("sql", "from runs", "--tables"), 2, "--tables")
