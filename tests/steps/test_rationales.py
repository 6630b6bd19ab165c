"""The teacher's rationales from a server that answers what a test says: rounds, verification, restructuring, shards."""

import json
import threading
from collections import Counter

import pytest
from aiohttp import web

from cotpipe.data.rows import Problem, Reject, TeacherOutcome, TeacherRationale, read_rows
from cotpipe.engines.base import Model, Request, Sampling
from cotpipe.engines.source import Source
from cotpipe.errors import RunError, UserError
from cotpipe.progress import Silent
from cotpipe.rationale.prompts import question_prompt
from cotpipe.recipe.files import load_recipe
from cotpipe.runs.catalog import query
from cotpipe.settings import Settings
from cotpipe.steps import problems as problems_step
from cotpipe.steps.curriculum import steps_of
from cotpipe.steps.generate import SharedEngine
from cotpipe.steps.runner import StepRunner
from cotpipe.steps.sharding import shards_of
from cotpipe.store.artifacts import open_store
from cotpipe.store.records import SHARDS
from tests.helpers.servers import ScriptedModel

TEACHER = ["teacher.engine=openai", "teacher.model=scripted", "teacher.max_rejected_share=1"]
PROBLEMS = ["problems.source.num_problems=12", "problems.source.max_number=50"]


class Pipeline:
    """The steps before `lessons`, on a store of its own."""

    def __init__(self, folder, model, *overrides, **settings):
        self.recipe = load_recipe("demo", [*PROBLEMS, *TEACHER, *overrides])
        self.settings = Settings(store=str(folder / "store"), servers=(model.address,), **settings)
        self.store = open_store(self.settings)

    def run(self, refresh=()):
        runner, found = StepRunner(self.store, self.settings, Silent()), {}
        for kind in ("problems", "rationales"):
            step = steps_of(self.recipe)[kind]
            inputs = {name: found[name].reference for name in step.inputs}
            found[kind] = runner.run(step, self.recipe, inputs, kind in refresh)
        return found["rationales"]

    def rows(self, outcome, name, row_type):
        return list(read_rows(self.store.path(outcome.record, f"{name}.parquet"), row_type))


def gold(tmp_path) -> dict[str, Problem]:
    """The problems of these tests by their question."""
    with ScriptedModel(lambda messages, body: "") as nobody:
        pipeline = Pipeline(tmp_path / "gold", nobody)
        outcome = StepRunner(pipeline.store, pipeline.settings, Silent()).run(
            problems_step.STEP, pipeline.recipe, {}
        )
    return {problem.question: problem for problem in pipeline.rows(outcome, "problems", Problem)}


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    return gold(tmp_path_factory.mktemp("problems"))


def solution(problem, note=""):
    return f"Step 1: {note}first\nStep 2: then\nAnswer: {problem.answer}"


def test_only_verified_rationales_are_kept_and_the_yield_adds_up(problems, tmp_path):
    numbers = {question: index for index, question in enumerate(problems)}
    said = [
        lambda problem: solution(problem),
        lambda problem: f"<think>Answer: 1</think>{solution(problem)}",
        lambda problem: f"{solution(problem)}\n\nQuestion: and 2 + 2?\nAnswer: 4",
        lambda problem: "Step 1: a\nStep 2: b\nAnswer: 123456",
        lambda problem: "I have no idea.",
        lambda problem: f"I just know it.\nAnswer: {problem.answer}",
    ]

    def answer(messages, body):
        problem = problems[messages[-1]["content"]]
        return said[numbers[problem.question] % 6](problem)

    with ScriptedModel(answer) as model:
        pipeline = Pipeline(tmp_path, model)
        outcome = pipeline.run()
        rationales = pipeline.rows(outcome, "rationales", TeacherRationale)
        yields = {row.outcome: row for row in pipeline.rows(outcome, "teacher", TeacherOutcome)}
    assert len(rationales) == 6
    assert all(row.steps[1:] == ["then"] and not row.restructured for row in rationales)
    assert {name: row.num_answers for name, row in yields.items()} == {
        "verified": 6, "wrong answer": 2, "no answer": 2, "no labelled steps": 2,
    }  # fmt: skip
    assert sum(row.share for row in yields.values()) == pytest.approx(1)
    assert next(iter(yields)) == "verified"
    assert outcome.record.counts["dropped"] == 6
    assert len(outcome.record.parts) == 1
    found = query(pipeline.store, "select sum(num_tokens) from teacher").fetchall()
    assert found == query(pipeline.store, "select sum(num_tokens) from generations").fetchall()


def test_problems_without_a_verified_rationale_are_asked_again_for_more(problems, tmp_path):
    asked: dict[str, int] = {}
    lock = threading.Lock()

    def answer(messages, body):
        question = messages[-1]["content"]
        with lock:
            asked[question] = asked.get(question, 0) + 1
            number = asked[question]
        return (
            solution(problems[question])
            if number >= (1 + list(problems).index(question) % 4)
            else "no idea"
        )

    with ScriptedModel(answer) as model:
        pipeline = Pipeline(tmp_path, model, "teacher.max_rounds=2")
        outcome = pipeline.run()
        rationales = pipeline.rows(outcome, "rationales", TeacherRationale)
    # One answer in the first round, two more in the second: right from the 1st, 2nd, 3rd answer on, or never in time.
    assert sorted(asked.values()) == [1] * 3 + [3] * 9
    solved = {row.problem_id for row in rationales}
    assert len(solved) == 9
    assert {row.sample for row in rationales} == {0, 1, 2}
    seeds = [body["seed"] for body in model.bodies]
    assert len(set(seeds)) == len(seeds)


def test_a_right_answer_without_steps_is_written_again_in_steps(problems, tmp_path):
    def answer(messages, body):
        content = messages[-1]["content"]
        question, helped, solved = content.partition("\n\nA right solution.")
        problem = problems[question]
        if helped:
            assert "I just know it" in solved
            return solution(problem, note="again, ")
        return f"I just know it.\nAnswer: {problem.answer}"

    with ScriptedModel(answer) as model:
        pipeline = Pipeline(tmp_path, model, "teacher.restructure=true")
        outcome = pipeline.run()
        rationales = pipeline.rows(outcome, "rationales", TeacherRationale)
    assert [row.steps[0] for row in rationales] == ["again, first"] * 12
    assert all(row.restructured for row in rationales)


def test_nothing_is_written_again_where_all_answers_have_steps(problems, tmp_path):
    with ScriptedModel(lambda messages, body: solution(problems[messages[-1]["content"]])) as model:
        outcome = Pipeline(tmp_path, model, "teacher.restructure=true").run()
        assert len(model.bodies) == 12
    assert outcome.record.counts["kept"] == 12
    assert {file.path for file in outcome.record.files} == {
        "rationales.parquet", "rejects.parquet", "teacher.parquet",
    }  # fmt: skip


def breaking_in(shard, problems):
    """A switch, and a model that refuses the first request of a shard while it is on."""
    broken, unlucky = {"on": False}, list(problems)[shard[0]]

    def answer(messages, body):
        if broken["on"] and messages[-1]["content"] == unlucky:
            return web.Response(status=400)
        return solution(problems[messages[-1]["content"]])

    return broken, answer


def test_a_crash_costs_one_shard_and_nothing_is_asked_twice(problems, tmp_path):
    shards = shards_of([problem.problem_id for problem in problems.values()], 3)
    broken, answer = breaking_in(shards[2], problems)
    broken["on"] = True
    with ScriptedModel(answer) as model:
        pipeline = Pipeline(tmp_path, model, shard_size=3, shards_at_once=1)
        with pytest.raises(UserError, match="rejects the request"):
            pipeline.run()
        done = {record.fingerprint: record.attempt for record in pipeline.store.records(SHARDS)}
        assert len(done) == 2
        before = len(model.bodies)
        broken["on"] = False
        outcome = pipeline.run()
        missing = len(problems) - len(shards[0]) - len(shards[1])
        assert len(model.bodies) - before == missing
    made = {record.fingerprint: record.attempt for record in pipeline.store.records(SHARDS)}
    assert done.items() < made.items()
    assert len(made) == len(shards)
    assert {part.fingerprint for part in outcome.record.parts} == set(made)
    assert outcome.record.counts["kept"] == 12


def test_a_refresh_that_fails_is_gone_on_with_and_pays_for_no_shard_twice(problems, tmp_path):
    shards = shards_of([problem.problem_id for problem in problems.values()], 3)
    broken, answer = breaking_in(shards[2], problems)
    with ScriptedModel(answer) as model:
        pipeline = Pipeline(tmp_path, model, shard_size=3, shards_at_once=1)
        first = pipeline.run()
        broken["on"] = True
        for _ in range(2):
            with pytest.raises(UserError, match="rejects the request"):
                pipeline.run(refresh=["rationales"])
        assert pipeline.run().reference == first.reference  # the old one counts until then
        broken["on"] = False
        refreshed = pipeline.run(refresh=["rationales"])
        others = set(problems) - {list(problems)[position] for position in shards[2]}
        asked = Counter(body["messages"][-1]["content"] for body in model.bodies)
        assert {asked[question] for question in others} == {2}  # at first, and in the refresh
        assert pipeline.run().reference == refreshed.reference != first.reference
        before = len(model.bodies)
        pipeline.run(refresh=["rationales"])
        assert len(model.bodies) - before == len(problems)  # another refresh is another one


def test_taking_a_problem_out_asks_again_for_one_shard_of_forty(tmp_path):
    rows = [{"question": f"How many is {number}?", "answer": "7"} for number in range(205)]
    path = tmp_path / "problems.jsonl"

    def shards_with(model, chosen) -> set[str]:
        path.write_text("".join(json.dumps(row) + "\n" for row in chosen))
        source = f"problems.source={{kind: file, path: {path}}}"
        outcome = Pipeline(tmp_path, model, source, shard_size=8).run()
        return {part.fingerprint for part in outcome.record.parts}

    said = "Step 1: think\nStep 2: count\nAnswer: 7"
    with ScriptedModel(lambda messages, body: said) as model:
        before = shards_with(model, rows)
        assert len(before) == 40
        asked = len(model.bodies)
        after = shards_with(model, rows[:100] + rows[101:])
        assert len(before & after) == 39
        assert len(model.bodies) - asked <= 8


def test_the_order_of_rationales_does_not_depend_on_the_size_of_shards(problems, tmp_path):
    with ScriptedModel(lambda messages, body: solution(problems[messages[-1]["content"]])) as model:
        pipelines = [Pipeline(tmp_path / str(size), model, shard_size=size) for size in (1, 5, 500)]
        tables = [one.rows(one.run(), "rationales", TeacherRationale) for one in pipelines]
    assert tables[0] == tables[1] == tables[2]
    assert len(tables[0]) == 12


def test_a_prompt_that_is_too_long_costs_its_row_and_no_other(problems, tmp_path):
    unlucky = list(problems)[4]
    message = "This model's maximum context length is 32768 tokens. However, you requested 40000."

    def answer(messages, body):
        if messages[-1]["content"] == unlucky:
            return web.json_response({"error": {"message": message}}, status=400)
        return solution(problems[messages[-1]["content"]])

    with ScriptedModel(answer) as model:
        pipeline = Pipeline(tmp_path, model, "teacher.num_samples=2", "teacher.max_rounds=3")
        outcome = pipeline.run()
        assert len(model.bodies) == 24  # what does not fit is not asked again
    rejects = pipeline.rows(outcome, "rejects", Reject)
    assert {(row.problem_id, row.reason) for row in rejects} == {
        (problems[unlucky].problem_id, "prompt too long")
    }
    assert "maximum context length is 32768" in rejects[0].detail
    assert outcome.record.counts == {"kept": 22, "dropped": 2, "prompt too long": 2}


def test_what_answers_no_more_is_not_asked_by_other_shards():
    request, sampling = Request("p", question_prompt("?")), Sampling(1, 0.0, 9, 0)
    with (
        ScriptedModel(lambda messages, body: web.Response(status=500)) as model,
        SharedEngine(
            Source(
                "openai", Model("scripted"), Settings(servers=(model.address,), server_attempts=2)
            ),
            Silent().note,
        ) as engine,
    ):
        for _ in range(3):
            with pytest.raises(RunError, match="problem p: no response after 2 attempts"):
                engine.generate([request], sampling, Silent())
    assert len(model.bodies) == 2


def test_other_thresholds_ask_nobody_again(problems, tmp_path):
    with ScriptedModel(lambda messages, body: solution(problems[messages[-1]["content"]])) as model:
        first = Pipeline(tmp_path, model).run()
        other = Pipeline(tmp_path, model, "teacher.min_steps=3")
        with pytest.raises(UserError, match="12 of 12 rows were rejected.*too few steps"):
            Pipeline(tmp_path, model, "teacher.min_steps=3", "teacher.max_rejected_share=0.5").run()
        second = other.run()
        assert len(model.bodies) == 12
    assert first.reference != second.reference
    assert first.record.parts == second.record.parts


def test_the_engine_and_the_servers_are_no_part_of_the_identity(tmp_path):
    from cotpipe.steps.plan import name_artifacts

    with ScriptedModel(lambda messages, body: "") as model:
        store = Pipeline(tmp_path, model).store
    recipes = [
        load_recipe("demo", ["teacher.model=owner/name", f"teacher.engine={engine}"])
        for engine in ("auto", "vllm", "transformers", "openai")
    ]
    assert len({name_artifacts(recipe, store)["rationales"] for recipe in recipes}) == 1
