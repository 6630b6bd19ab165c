"""`cotpipe evaluate`: what it asks, what it reuses, what it shows, and what it refuses."""

import csv
import io
import itertools
import json
import re
from collections import Counter

import pytest

from cotpipe.recipe.files import load_recipe
from cotpipe.runs.catalog import query
from cotpipe.settings import Settings
from cotpipe.steps.held_out import held_out_lessons
from cotpipe.steps.lessons import read_lessons
from cotpipe.store.artifacts import open_store
from tests.helpers.flow_runs import TINY, assert_one_line_error, cotpipe
from tests.helpers.servers import ScriptedModel, free_port

RATIONALE = "Step 1: Think.\nStep 2: Add.\nAnswer: {}"


def sums(number: int) -> tuple[str, int]:
    return f"What is {number} + {number + 1}?", 2 * number + 1


def answer(messages, body) -> str:
    """Right for two in three problems, the brief way; a sample is right with an even seed."""
    first, second = map(int, re.findall(r"\d+", messages[-1]["content"]))
    right = first % 3 if not body["temperature"] else body["seed"] % 2 == 0
    return RATIONALE.format(first + second if right else 0)


def long_answer(messages, body) -> str:
    """Always right, in many words."""
    first, second = map(int, re.findall(r"\d+", messages[-1]["content"]))
    return f"Step 1: {'Well, ' * 30}\n" + RATIONALE.format(first + second)


@pytest.fixture
def recipe(tmp_path, monkeypatch) -> str:
    """A recipe on a file of problems, in a store of its own."""
    monkeypatch.setenv("COTPIPE_STORE", str(tmp_path / "store"))
    rows = [dict(zip(("question", "answer"), sums(number), strict=True)) for number in range(60)]
    for number, row in enumerate(rows):
        row["answer"] = f"{'One step. ' if number % 2 else ''}\nAdd.\n#### {row['answer']}"
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.yaml").write_text(
        f"name: sums\nproblems:\n  source: {{kind: file, path: {tmp_path}/problems.jsonl}}\n"
        "  splits: {stage1: 0.2, stage2: 0.2, mining: 0, validation: 0, test: 0.6}\n"
    )
    return str(tmp_path / "recipe.yaml")


def evaluated(*arguments: str) -> list[dict]:
    done = cotpipe("evaluate", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def figure(rows: list[dict], group: str, name: str, side: str = "first") -> dict:
    (found,) = [
        row for row in rows if (row["group"], row["name"], row["of"]) == (group, name, side)
    ]
    return found


def select(sql: str) -> list[tuple]:
    return query(open_store(Settings()), sql).fetchall()


def test_a_served_model_is_asked_the_held_out_problems_once(recipe):
    with ScriptedModel(answer) as model:
        rows = evaluated(model.address, "--recipe", recipe)
        held_out = Counter(body["messages"][-1]["content"] for body in model.bodies)
        assert set(held_out.values()) == {1}
        assert evaluated(f"{model.address}#scripted", "--recipe", recipe) != []
        assert len(model.bodies) == len(held_out)
        evaluated(model.address, "--recipe", recipe, "--refresh")
        assert len(model.bodies) == 2 * len(held_out)
    right = sum(int(re.findall(r"\d+", question)[0]) % 3 > 0 for question in held_out)
    accuracy = figure(rows, "greedy", "accuracy")
    assert accuracy["problems"] == len(held_out) > 20
    assert accuracy["value"] == pytest.approx(right / len(held_out))
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    assert figure(rows, "tokens of an answer", "median")["value"] == 8
    by_steps = {row["name"]: row["problems"] for row in rows if "steps" in row["group"]}
    assert by_steps.keys() == {"1", "2"}
    assert sum(by_steps.values()) == len(held_out)


def test_samples_give_pass_at_k_and_votes_and_more_of_them_reuse_the_first(recipe):
    with ScriptedModel(answer) as model:
        few = evaluated(model.address, "--recipe", recipe, "--samples", "8", "-k", "1", "-k", "8")
        asked = len(model.bodies)
        many = evaluated(model.address, "--recipe", recipe, "--samples", "12")
        held_out = figure(few, "greedy", "accuracy")["problems"]
        assert (asked, len(model.bodies)) == (9 * held_out, 13 * held_out)
        assert {body["temperature"] for body in model.bodies} == {0, 0.7}
        assert len({body.get("seed") for body in model.bodies}) == 12 * held_out + 1
    assert [row["name"] for row in many if row["group"] == "maj@k"] == ["1", "2", "4", "8", "12"]
    one, eight = (figure(few, "pass@k", k) for k in "18")
    (share,) = select("select avg(correct::int) from completions where sample < 8")[0]
    assert one["value"] == pytest.approx(share)
    assert one["value"] < eight["value"] <= 1
    assert figure(few, "maj@k", "1")["value"] == pytest.approx(share)


def test_two_models_are_compared_on_the_same_problems(recipe):
    with ScriptedModel(answer) as brief, ScriptedModel(long_answer) as long:
        rows = evaluated(
            brief.address, "--against", long.address, "--recipe", recipe, "--samples", "2"
        )
        text = cotpipe("evaluate", brief.address, "--against", long.address, "--recipe", recipe)
    names = {(row["of"], row["model"]) for row in rows}
    assert names == {("first", brief.address), ("second", long.address), ("difference", None)}
    accuracy = figure(rows, "greedy", "accuracy")["value"]
    difference = figure(rows, "greedy", "accuracy", "difference")
    assert difference["value"] == pytest.approx(accuracy - 1)
    assert difference["p_value"] < 0.05
    within = {
        (row["name"], row["of"]): row["value"]
        for row in rows
        if row["group"] == "right within so many tokens"
    }
    assert within["8", "first"] == pytest.approx(accuracy)
    assert (within["8", "second"], within["40", "second"]) == (0, 1)
    needed = [row for row in rows if row["group"] == "tokens needed for an accuracy"]
    assert {row["value"] for row in needed if row["of"] == "difference"} == {8 - 40}
    difficulty = figure(rows, "accuracy by how often the second is right", "always")
    assert difficulty["value"] == pytest.approx(accuracy)
    assert f"first: {brief.address}\nsecond: {long.address}\n" in text.stdout
    assert "right within so many tokens" in text.stdout


def test_figures_as_csv_are_those_of_json(recipe):
    with ScriptedModel(answer) as model:
        rows = evaluated(model.address, "--recipe", recipe)
        written = cotpipe("evaluate", model.address, "--recipe", recipe, "--csv").stdout
    read = list(csv.DictReader(io.StringIO(written)))
    assert [row["name"] for row in read] == [row["name"] for row in rows]
    assert [float(row["value"]) for row in read] == [row["value"] for row in rows]


def test_a_model_that_is_none_is_one_line(recipe, tmp_path):
    (tmp_path / "empty").mkdir()
    gone = f"http://127.0.0.1:{free_port()}/v1"
    for model, *parts in (
        ("nowhere", "nowhere", "neither a hub id"),
        (str(tmp_path / "empty"), "config.json"),
        ("wheel:no_such_package", "no_such_package", "pip install"),
        ("store:stage1/xyz", "store:stage3/"),
        (f"store:stage1/{'0' * 32}", "is not in the store"),
        ("promoted", "nothing is promoted"),
        (gone, "no server responds", "vllm serve"),
    ):
        assert_one_line_error(cotpipe("evaluate", model, "--recipe", recipe), 2, *parts)


def test_nothing_is_asked_if_the_second_model_is_none(recipe):
    with ScriptedModel(answer) as model:
        done = cotpipe("evaluate", model.address, "--against", "nowhere", "--recipe", recipe)
        assert model.bodies == []
    assert_one_line_error(done, 2, "nowhere", "neither a hub id")


def test_a_server_that_serves_others_is_one_line(recipe):
    with ScriptedModel(answer, models=("one", "two")) as model:
        several = cotpipe("evaluate", model.address, "--recipe", recipe)
        other = cotpipe("evaluate", f"{model.address}#three", "--recipe", recipe)
    assert_one_line_error(several, 2, "serves one, two", "#NAME")
    assert_one_line_error(other, 2, "not three")
    with ScriptedModel(answer, key="secret") as model:
        assert_one_line_error(cotpipe("evaluate", model.address), 2, "COTPIPE_SERVER_KEY")


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--samples", "4", "-k", "5"], ["-k 5", "--samples (4)"]),
        (["-k", "1"], ["--samples"]),
        (["--samples", "4", "--temperature", "0"], ["--temperature", "the same"]),
        (["--csv", "--json"], ["--csv", "--json"]),
        (["--set", "evaluation.split=validation"], ["validation", "is empty"]),
        (
            ["--set", "problems.splits={stage1: 1, stage2: 0, mining: 0, validation: 0, test: 0}"],
            ["'test' is empty", "problems.splits.test"],
        ),
    ],
)
def test_what_cannot_be_asked_is_one_line(recipe, options, parts):
    assert_one_line_error(cotpipe("evaluate", "nowhere/x", "--recipe", recipe, *options), 2, *parts)


def test_an_evaluation_of_other_problems_is_refused(recipe):
    with ScriptedModel(answer) as model:
        evaluated(model.address, "--recipe", recipe, "--set", "evaluation.max_problems=5")
        ((fingerprint,),) = select("select distinct fingerprint from evaluations")
        against = ["--against", f"store:evaluation/{fingerprint}"]
        other = cotpipe("evaluate", model.address, "--recipe", recipe, *against)
        same = ["--set", "evaluation.max_problems=5"]
        assert evaluated(model.address, "--recipe", recipe, *against, *same)
        longer = [*same, "--set", "evaluation.max_new_tokens=99"]
        cut = cotpipe("evaluate", model.address, "--recipe", recipe, *against, *longer)
        kind = [*same, "--set", "problems.answers.kind=exact"]
        judged = cotpipe("evaluate", model.address, "--recipe", recipe, *against, *kind)
        sampled = cotpipe("evaluate", model.address, "--recipe", recipe, *against, *same, "--samples", "2")  # fmt: skip
        table = cotpipe("evaluate", model.address, "--recipe", recipe, "--against", f"store:evaluation/{'0' * 32}")  # fmt: skip
    assert_one_line_error(other, 2, "other problems: 5, of which 5")
    assert_one_line_error(cut, 2, "evaluation.max_new_tokens=512")
    assert_one_line_error(judged, 2, "are judged as another kind than this recipe's (exact)")
    assert_one_line_error(sampled, 2, "has no samples")
    assert_one_line_error(table, 2, "no greedy evaluation")


def test_what_a_run_has_asked_is_not_asked_again(copied, finished, tiny_student, monkeypatch):
    monkeypatch.setenv("COTPIPE_ENGINE", "no/such/engine.py:opened")  # cannot be opened
    tiny = ["--recipe", TINY, "--set", f"student.model={tiny_student}"]
    references = {kind: result.reference for kind, result in finished[1].items()}
    cotpipe("promote", "last")
    for model, name in (
        (str(tiny_student), "base"),
        (f"store:{references['stage1']}", "stage1"),
        ("promoted", "stage3"),
    ):
        rows = evaluated(model, *tiny)
        ((problems, accuracy, tokens),) = select(
            "select count(*), avg(correct::int), avg(num_tokens) from evaluations "
            f"where kind = 'evaluation-{name}'"
        )
        assert figure(rows, "greedy", "accuracy")["problems"] == problems
        assert figure(rows, "greedy", "accuracy")["value"] == accuracy
        assert figure(rows, "tokens of an answer", "mean")["value"] == pytest.approx(tokens)
    stage = f"store:{references['evaluation-stage1']}"
    compared = evaluated(str(tiny_student), *tiny, "--against", stage)
    assert figure(compared, "greedy", "accuracy", "difference")["problems"] == problems
    lessons = cotpipe("evaluate", f"store:{references['lessons']}", *tiny)
    assert_one_line_error(lessons, 2, "is no checkpoint", "model/config.json")


def test_held_out_problems_are_those_of_the_lessons(finished):
    folder, results = finished
    store = open_store(Settings(store=str(folder)))
    paths = {
        kind: store.path(store.require(results[kind].reference), f"{kind}.parquet")
        for kind in ("problems", "lessons")
    }
    for split in ("validation", "test"):
        recipe = load_recipe(TINY, [f"evaluation.split={split}", "evaluation.max_problems=null"])
        found = held_out_lessons(paths["problems"], recipe)
        wanted = list(read_lessons(paths["lessons"], split))
        told = [
            [(one.problem_id, one.position, one.question, one.answer) for one in lessons]
            for lessons in (found, wanted)
        ]
        assert told[0] == told[1] != []


def test_votes_and_verdicts_are_those_of_the_kind_of_answers(tmp_path, monkeypatch):
    monkeypatch.setenv("COTPIPE_STORE", str(tmp_path / "store"))
    rows = [
        {"question": f"Number {number}: which? A) red B) dark blue", "answer": "B"}
        for number in range(6)
    ]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "own.py").write_text(
        "from cotpipe.rationale.answers import AnswerKind\n"
        "def it():\n"
        "    return AnswerKind(form='option', match=lambda said, gold, question: 'blue' in said)\n"
    )
    options = [
        *("--set", f"problems.source={{kind: file, path: {tmp_path}/problems.jsonl}}"),
        *("--set", "problems.splits={stage1: 0, stage2: 0, mining: 0, validation: 0, test: 1}"),
    ]
    # One sample in two says `A`, the others name the right option in two ways.
    said = ("Answer: A", "Answer: dark blue", "Answer: A", "Answer: (B) dark blue")
    for kind in ("choice", f"{tmp_path}/own.py:it"):
        given = itertools.count()
        with ScriptedModel(lambda messages, body, given=given: said[next(given) % 4]) as model:
            monkeypatch.setenv("COTPIPE_SERVER_CONCURRENCY", "1")  # in the order of the samples
            rows = evaluated(model.address, *options, "--set", f"problems.answers.kind={kind}", "--samples", "4")  # fmt: skip
        assert figure(rows, "pass@k", "1")["value"] == 0.5
        assert figure(rows, "pass@k", "2")["value"] == pytest.approx(1 - 1 / 6)
        assert figure(rows, "maj@k", "4")["value"] == 0.5  # all right answers are one: a draw
