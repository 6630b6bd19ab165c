"""`cotpipe ask`: any model answers in the terminal, as it writes."""

import pytest
from aiohttp import web

from cotpipe.engines.served import Served
from cotpipe.engines.streaming import ServedModel
from cotpipe.progress import Silent
from cotpipe.rationale.prompts import question_prompt
from cotpipe.recipe.files import load_recipe
from cotpipe.runs.asking import asker
from cotpipe.runs.promotion import ModelRegistry, write_registry
from cotpipe.settings import Settings
from cotpipe.steps import student
from cotpipe.steps.runner import StepRunner
from cotpipe.store.artifacts import open_store
from tests.helpers.flow_runs import assert_one_line_error, cotpipe
from tests.helpers.servers import ScriptedModel
from tests.helpers.students import SAID

QUESTION = "What is 5 + 7?"


def test_a_checkpoint_answers_and_its_answer_is_told(talker):
    done = cotpipe("ask", str(talker), QUESTION)
    assert done.stdout == f"{SAID}\nanswer: 12\n", done.stderr


def test_several_models_answer_one_after_the_other(talker):
    with ScriptedModel(lambda messages, body: "Well.\n\nI do not know.") as model:
        done = cotpipe("ask", str(talker), QUESTION, "--also", model.address)
        assert model.bodies[0]["messages"] == question_prompt(QUESTION)
        limit = load_recipe("demo").evaluation.max_new_tokens
        assert (model.bodies[0]["temperature"], model.bodies[0]["max_tokens"]) == (0, limit)
    first, second = done.stdout.split(model.address)[:2]
    assert f"{SAID}\nanswer: 12" in first
    assert second.startswith("\nWell.\n\nI do not know.\nno answer\n")


def test_a_model_of_the_store_is_asked_by_its_name_and_as_the_promoted_one(
    talker, tmp_path, monkeypatch
):
    monkeypatch.setenv("COTPIPE_STORE", str(tmp_path))
    store = open_store(Settings())
    recipe = load_recipe("demo", [f"student.model={talker}"])
    made = StepRunner(store, Settings(), Silent()).run(student.STEP, recipe, {}).reference
    assert_one_line_error(cotpipe("ask", "promoted", QUESTION), 2, "nothing is promoted")
    write_registry(store.storage, ModelRegistry().with_promotion(made, "run", "a test"))
    for name in (f"store:{made}", "promoted"):
        assert "answer: 12" in cotpipe("ask", name, QUESTION).stdout


def test_an_answer_that_reaches_the_limit_is_marked(talker):
    done = cotpipe("ask", str(talker), QUESTION, "--set", "evaluation.max_new_tokens=9")
    assert done.stdout == "Step 1: x\nanswer: 1, cut off at evaluation.max_new_tokens\n"


def test_a_model_writes_nothing_but_text_to_the_terminal():
    hostile = "\x1b]0;title\x07 [red]x[/red] :smile: \r\u202e\nAnswer: 3"
    with ScriptedModel(lambda messages, body: hostile) as model:
        done = cotpipe("ask", model.address, QUESTION)
    assert done.stdout == (
        "\\x1b]0;title\\x07 [red]x[/red] :smile: \\x0d\\u202e\nAnswer: 3\nanswer: 3\n"
    )


def test_each_piece_is_shown_before_the_next_is_there(talker):
    shown: list[str] = []
    with ScriptedModel(lambda messages, body: "one two three", may_go_on=lambda: bool(shown)) as model:  # fmt: skip
        served = ServedModel(Served(model.address, "scripted"), Settings())
        said = served.answer(
            question_prompt(QUESTION), 9, lambda piece: shown.extend(piece.split())
        )
    assert (said.text, shown) == ("one two three", ["one", "two", "three"])
    pieces: list[str] = []
    answered = asker(str(talker), Settings(), load_recipe("demo"))(QUESTION, pieces.append)
    assert answered.text == "".join(pieces) == SAID
    assert answered.num_tokens == len(SAID) + 1
    assert len([piece for piece in pieces if piece]) > 3


def test_thoughts_are_no_part_of_the_answer():
    with ScriptedModel(lambda messages, body: "<think>Answer: 4</think> Hm.") as model:
        assert cotpipe("ask", model.address, QUESTION).stdout.endswith("no answer\n")


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ("nowhere", ["nowhere", "neither a hub id"]),
        ("wheel:no_such_package", ["no_such_package", "pip install"]),
        ("http://127.0.0.1:9/v1", ["no server responds"]),
    ],
)
def test_a_model_that_is_none_is_one_line(model, parts):
    assert_one_line_error(cotpipe("ask", model, QUESTION), 2, *parts)


def test_what_cannot_be_asked_is_one_line(talker, tmp_path):
    assert_one_line_error(cotpipe("ask", str(talker), " "), 2, "the question is empty")
    assert_one_line_error(cotpipe("ask", str(tmp_path), QUESTION), 2, "config.json")
    done = cotpipe("ask", str(talker), "long " * 200)
    assert_one_line_error(done, 2, "context of 1024", "shorten the question")


def test_a_server_that_refuses_or_breaks_off_is_one_line():
    refusal = {"error": {"message": "no such\nmodel"}}
    for said, status, part in (
        (lambda *_: web.json_response(refusal, status=400), 2, "(400): no such model"),
        (lambda *_: {"content": "Step 1:", "finish_reason": None}, 1, "broke off its answer"),
    ):
        with ScriptedModel(said) as model:
            assert_one_line_error(cotpipe("ask", model.address, QUESTION), status, part)
