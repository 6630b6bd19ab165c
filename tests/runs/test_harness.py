"""The problems as a task of lm-evaluation-harness: it asks the same, and judges alike, problem by problem.

The harness itself has an environment of its own: `make test-lm-eval`.
"""

import importlib.util
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cotpipe.runs.catalog import query
from cotpipe.settings import Settings
from cotpipe.store.artifacts import open_store
from tests.helpers.flow_runs import assert_one_line_error, cotpipe


@pytest.fixture
def task(tmp_path, talker, monkeypatch) -> Path:
    """The folder of a task with 24 problems, every second of which has the answer that is always given."""
    monkeypatch.setenv("COTPIPE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv(
        "COTPIPE_PRECISION", "float32"
    )  # bfloat16 decides near ties by the batch's shape
    rows = [
        {"question": f"What is {number} + 2, or {{x}}?", "answer": f"#### {12 + number % 2}"}
        for number in range(24)
    ]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.yaml").write_text(
        f"name: sums-1\nproblems:\n  source: {{kind: file, path: {tmp_path}/problems.jsonl}}\n"
        "  splits: {stage1: 0, stage2: 0, mining: 0, validation: 0, test: 1}\n"
        f"student: {{model: {talker}}}\nevaluation: {{max_new_tokens: 40}}\n"
    )
    done = cotpipe(
        "evaluate", "--recipe", f"{tmp_path}/recipe.yaml", "--lm-eval", f"{tmp_path}/task"
    )
    assert done.returncode == 0, done.stderr
    (tmp_path / "task" / "command").write_text(done.stdout)
    return tmp_path / "task"


def judge_of(task: Path):
    spec = importlib.util.spec_from_file_location("judge", task / "judge.py")
    assert spec
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_task_carries_prompts_end_tokens_and_limits(task):
    text = (task / "task.yaml").read_text()
    settings = yaml.safe_load(text.split("custom_dataset")[0])
    assert settings["task"] == "cotpipe_sums_1_test"
    assert settings["generation_kwargs"] == {
        "until": ["<|im_end|>"],
        "do_sample": False,
        "temperature": 0.0,
        "max_gen_toks": 40,
    }
    rows = [json.loads(line) for line in (task / "problems.jsonl").read_text().splitlines()]
    assert len(rows) == 24
    assert rows[0]["prompt"] == (
        "<|im_start|>system\nSolve step by step: lines 'Step 1: ...', then 'Answer: number'.<|im_end|>\n"
        f"<|im_start|>user\n{rows[0]['question']}<|im_end|>\n<|im_start|>assistant\n"
    )
    command = (task / "command").read_text().strip()
    assert command in text
    assert ",dtype=float32," in command  # as the machine's own evaluations


@pytest.mark.parametrize(
    ("completion", "answer", "correct", "exact"),
    [
        ("Step 1: a\nAnswer: 12", "12", 1, 1),
        ("Answer: $1,200.", "1200", 1, 1),
        ("Answer: 0.5", "1/2", 1, 0),  # equal, in another notation
        ("so it is 12", "12", 1, 0),  # found without its label
        ("<think>Answer: 12</think>Answer: 13", "12", 0, 0),
        ("", "12", 0, 0),
    ],
)
def test_the_judge_is_that_of_the_recipe_and_a_plain_one(task, completion, answer, correct, exact):
    found = judge_of(task).process_results(
        {"question": "?", "answer": answer, "fits": True}, [completion]
    )
    assert found == {"correct": correct, "exact_match": exact}


def test_a_prompt_that_is_too_long_counts_as_wrong(task):
    found = judge_of(task).process_results(
        {"question": "?", "answer": "12", "fits": False}, ["Answer: 12"]
    )
    assert found == {"correct": 0, "exact_match": 0}


def test_what_cannot_be_written_is_one_line(task, tmp_path):
    recipe = ["--recipe", f"{tmp_path}/recipe.yaml"]
    (tmp_path / "file").touch()
    done = cotpipe("evaluate", *recipe, "--lm-eval", f"{tmp_path}/file")
    assert_one_line_error(done, 2, "--lm-eval", "cannot be written")
    done = cotpipe("evaluate", *recipe, "--lm-eval", f"{tmp_path}/new", "--samples", "2")
    assert_one_line_error(done, 2, "--lm-eval", "nothing is asked")


@pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None,
    reason="lm-evaluation-harness has an environment of its own: make test-lm-eval",
)
def test_the_harness_agrees_problem_by_problem(task, tmp_path):
    command = shlex.split((task / "command").read_text())
    done = subprocess.run(
        [sys.executable, "-m", "lm_eval", *command[1:], "--device", "cpu"],
        cwd=tmp_path,  # it is called from anywhere
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    (results,) = task.glob("results/**/results_*.json")
    (samples,) = task.glob("results/**/samples_*.jsonl")
    judged = {
        row["doc"]["problem_id"]: row for row in map(json.loads, samples.read_text().splitlines())
    }
    ours = cotpipe("evaluate", "--recipe", f"{tmp_path}/recipe.yaml", "--json")
    accuracy = json.loads(ours.stdout.splitlines()[0])
    found = query(
        open_store(Settings()), "select problem_id, completion, correct from evaluations"
    ).fetchall()
    assert len(found) == len(judged) == 24
    for problem_id, completion, correct in found:
        sample = judged[problem_id]
        assert sample["arguments"]["gen_args_0"]["arg_0"] == sample["doc"]["prompt"]
        assert sample["filtered_resps"] == [completion]
        assert bool(sample["correct"]) == bool(sample["exact_match"]) == correct
    score = json.loads(results.read_text())["results"]["cotpipe_sums_1_test"]["correct,none"]
    assert score == accuracy["value"] == 0.5
