"""The engine for OpenAI-compatible servers, against a server that answers what a test says."""

import itertools
import re

import pytest
from aiohttp import web

from cotpipe.engines import servers
from cotpipe.engines.base import Model, Request, Sampling
from cotpipe.engines.openai_engine import open_servers
from cotpipe.errors import RunError, UserError
from cotpipe.progress import Silent
from cotpipe.rationale.prompts import question_prompt
from cotpipe.settings import Settings
from tests.helpers.servers import ScriptedModel, free_port

REQUESTS = [Request(f"p{number}", question_prompt(f"Question {number}?")) for number in range(20)]
SAMPLING = Sampling(
    num_samples=2, temperature=0.7, max_new_tokens=50, seed=3, top_p=0.9, stop=("\nQuestion:",)
)
KEY = "sk-very-secret-key"


def echo(messages, body):
    return f"{messages[-1]['content']} {body.get('seed')}"


def ask(model, requests=REQUESTS, sampling=SAMPLING, address=None, **settings):
    asked = Settings(servers=(address or model.address,), **settings)
    with open_servers(Model("scripted"), asked) as engine:
        return engine.generate(requests, sampling, Silent())


def test_each_sample_is_a_request_with_a_seed_of_its_own():
    with ScriptedModel(echo) as model:
        first, again = ask(model), ask(model, list(reversed(REQUESTS)))
    assert [[one.text for one in samples] for samples in first] == [
        [f"Question {number}? {SAMPLING.seed_of(f'p{number}', sample)}" for sample in range(2)]
        for number in range(20)
    ]
    assert first == list(reversed(again))
    body = model.bodies[0]
    assert body["model"] == "scripted"
    assert (body["temperature"], body["top_p"], body["max_tokens"], body["stop"]) == (
        0.7,
        0.9,
        50,
        ["\nQuestion:"],
    )


def test_thoughts_are_put_apart_and_the_cut_off_are_marked():
    said = iter(
        [
            {"content": "<think>hm</think>\nAnswer: 3"},
            {"content": "Answer: 3", "reasoning_content": "hm"},
            {"content": "Answer: 3", "reasoning": "hm"},
            {"content": None, "reasoning": "hm", "finish_reason": "length"},
        ]
    )
    with ScriptedModel(lambda messages, body: next(said)) as model:
        answers = ask(model, REQUESTS[:1], Sampling(4, 0.0, 50, 0), server_concurrency=1)[0]
    assert [one.thoughts for one in answers] == ["hm"] * 4
    assert [one.text for one in answers] == ["Answer: 3"] * 3 + [""]
    assert [one.truncated for one in answers] == [False, False, False, True]


def test_what_can_heal_is_asked_again():
    broken = itertools.cycle(
        [
            web.Response(status=429, headers={"Retry-After": "0.2"}),
            web.Response(status=503),
            web.json_response({"choices": []}),
            web.Response(body=b'{"choices": [{"mess'),
        ]
    )
    calls = itertools.count()

    def answer(messages, body):
        if next(calls) % 2 == 0:
            fault = next(broken)
            return web.Response(status=fault.status, headers=fault.headers, body=fault.body)
        return echo(messages, body)

    with ScriptedModel(answer) as model:
        answers = ask(model, server_concurrency=4)
    assert [[one.text for one in samples] for samples in answers] == [
        [f"Question {number}? {SAMPLING.seed_of(f'p{number}', sample)}" for sample in range(2)]
        for number in range(20)
    ]


def test_a_server_that_stays_broken_ends_the_step():
    with (
        ScriptedModel(lambda messages, body: web.Response(status=500)) as model,
        pytest.raises(
            RunError,
            match=r"problem p0: no response after 3 attempts: .* returned status 500; check the server",
        ),
    ):
        ask(model, REQUESTS[:1], server_attempts=3)


def test_of_several_servers_the_dead_one_is_left_out():
    dead = f"http://127.0.0.1:{free_port()}/v1"
    with ScriptedModel(echo) as one, ScriptedModel(echo) as two:
        asked = Settings(servers=(dead, one.address, two.address), server_concurrency=8)
        with open_servers(Model("scripted"), asked) as engine:
            answers = engine.generate(REQUESTS * 5, SAMPLING, Silent())
    assert all(sample.text for samples in answers for sample in samples)
    assert min(len(one.bodies), len(two.bodies)) > 60  # of 200


def test_no_more_requests_than_asked_for_in_any_window(monkeypatch):
    monkeypatch.setattr(servers, "_WINDOW", 0.5)
    with ScriptedModel(echo) as model:
        ask(model, REQUESTS[:12], Sampling(1, 0.0, 50, 0), requests_per_minute=5)
    assert len(model.times) == 12
    for first, sixth in zip(model.times, model.times[5:], strict=False):
        assert sixth - first > 0.45  # on the way to the server they come closer by a little


def test_no_more_tokens_than_asked_for_in_any_window(monkeypatch):
    monkeypatch.setattr(servers, "_WINDOW", 0.5)
    with ScriptedModel(echo) as model:
        ask(
            model, REQUESTS[:6], Sampling(1, 0.0, 50, 0), tokens_per_minute=160
        )  # about 75 a request: two at a time
        for first, third in zip(model.times, model.times[2:], strict=False):
            assert third - first > 0.45
        with pytest.raises(UserError, match="COTPIPE_TOKENS_PER_MINUTE: a single request may take"):
            ask(model, REQUESTS[:1], Sampling(1, 0.0, 500, 0), tokens_per_minute=160)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"models": ("other", "another")},
            r"serves other, another, not scripted; set teacher.model",
        ),
        ({"key": "another-key"}, r"rejects the key \(401\); set COTPIPE_SERVER_KEY"),
    ],
)
def test_a_server_that_does_not_fit_is_one_line(settings, message, caplog):
    with (
        ScriptedModel(echo, **settings) as model,
        pytest.raises(UserError, match=message) as raised,
    ):
        ask(model, server_key=KEY)
    assert "\n" not in str(raised.value)
    assert KEY not in str(raised.value) + caplog.text


def test_the_key_is_sent_and_told_to_nobody(caplog):
    with caplog.at_level("DEBUG"), ScriptedModel(echo, key=KEY) as model:
        assert ask(model, REQUESTS[:1], server_key=KEY)[0]
        with pytest.raises(UserError, match="rejects the key"):
            ask(model, REQUESTS[:1])
    assert KEY not in caplog.text
    assert KEY not in repr(Settings(server_key=KEY)) + Settings(server_key=KEY).model_dump_json()


def test_no_server_is_told_at_once():
    with (
        pytest.raises(UserError, match="set COTPIPE_SERVERS"),
        open_servers(Model("scripted"), Settings()),
    ):
        pass
    nobody = f"http://127.0.0.1:{free_port()}/v1"
    with pytest.raises(
        UserError, match=rf"no server responds: {nobody}.*start one .*or set COTPIPE_SERVERS"
    ):
        ask(None, address=nobody)


TOO_LONG = (  # OpenAI, vLLM (four versions), SGLang, llama.cpp, TGI, others
    "This model's maximum context length is 1024 tokens. However, your messages resulted in 2048 tokens.",
    "Your input exceeds the context window of this model. Please adjust your input and try again.",
    "This model's maximum context length is 1024 tokens. However, you requested 2048 tokens.",
    "'max_tokens' or 'max_completion_tokens' is too large: 50. This model's maximum context length is "
    "1024 tokens and your request has 1000 input tokens (50 > 1024 - 1000).",
    "The decoder prompt (length 2048) is longer than the maximum model length of 1024.",
    "You passed 1000 input tokens and requested 50 output tokens. However, the model's context length "
    "is only 1024 tokens",
    "The input (2048 tokens) is longer than the model's context length (1024 tokens).",
    "the request exceeds the available context size, try increasing it",
    "`inputs` tokens + `max_new_tokens` must be <= 1024. Given: 1000 `inputs` tokens",
    "`inputs` must have less than 1024 tokens. Given: 2048",
    "Input prompt (2664 tokens) is too long and exceeds limit of 2048",
    "Request too large for this model",
    "prompt is too long: 210000 tokens > 200000 maximum",
)
NOT_THE_PROMPT = (
    "no such parameter: seed",
    "max_tokens is too large: 50. This model supports at most 40 completion tokens",
    "'max_tokens' or 'max_completion_tokens' is too large: 50. This model's maximum context length is "
    "40 tokens and your request has 20 input tokens (50 > 40 - 20).",
    "This model's maximum context length is 40 tokens. However, you requested 70 tokens (20 in the "
    "messages, 50 in the completion).",
    "Invalid 'seed': integer too large",
    "Invalid 'stop': array too long. Expected an array with maximum length 4",
)


@pytest.mark.parametrize("said", TOO_LONG)
def test_a_prompt_that_is_too_long_for_a_server_costs_the_others_nothing(said):
    def answer(messages, body):
        if "p0" in messages[-1]["content"]:
            return web.json_response({"error": {"message": said}}, status=400)
        return "fine"

    requests = [Request(name, question_prompt(name)) for name in ("p0", "p1")]
    with ScriptedModel(answer) as model:
        (long, *_), (fine, *_) = ask(model, requests, Sampling(2, 0.0, 50, 0))
    assert said in long.refused
    assert (fine.text, fine.refused) == ("fine", "")


@pytest.mark.parametrize("said", NOT_THE_PROMPT)
def test_a_request_that_a_server_refuses_for_another_reason_ends_the_step(said):
    def answer(messages, body):
        return web.json_response({"error": {"message": said}}, status=400)

    with (
        ScriptedModel(answer) as model,
        pytest.raises(UserError, match=f"problem p0: .*{re.escape(said)}; check the teacher's"),
    ):
        ask(model, REQUESTS[:1], Sampling(1, 0.0, 50, 0))
