"""The `openai` engine against vLLM's own server: faults, death, and what does not fit."""

import threading
import time

import pytest

from cotpipe.engines.base import Model, Request, Sampling
from cotpipe.engines.openai_engine import open_servers
from cotpipe.errors import UserError
from cotpipe.progress import Silent
from cotpipe.rationale.prompts import question_prompt
from cotpipe.settings import Settings
from tests.helpers.servers import FlakyProxy
from tests.helpers.vllm_server import KEY

REQUESTS = [
    Request(f"p{number}", question_prompt(f"What is {number} + {number + 1}?"))
    for number in range(40)
]
GREEDY = Sampling(num_samples=1, temperature=0.0, max_new_tokens=32, seed=0)


class Seen(Silent):
    """What the engine reports to be done, call by call."""

    def __init__(self):
        self.done = []

    def __call__(self, done, total, *_):
        self.done.append(done)


def settings(address, **changes) -> Settings:
    return Settings.model_validate({"servers": (f"{address}/v1",), "server_key": KEY} | changes)


def ask(address, requests=REQUESTS, sampling=GREEDY, progress=None, **changes):
    with open_servers(Model("smol"), settings(address, **changes)) as engine:
        return engine.generate(requests, sampling, progress or Silent())


@pytest.fixture(scope="module")
def calm(server):
    """What the server answers when nothing goes wrong, and the seconds that it takes."""
    began = time.monotonic()
    return ask(server.root), time.monotonic() - began


def assert_each_is_answered_once(answers, sampling=GREEDY):
    assert [len(samples) for samples in answers] == [sampling.num_samples] * len(REQUESTS)
    for samples in answers:
        for one in samples:
            assert one.text
            assert 0 < one.num_tokens <= sampling.max_new_tokens
            assert not one.truncated or one.num_tokens == sampling.max_new_tokens


def test_every_request_is_answered(calm):
    answers, _ = calm
    assert_each_is_answered_once(answers)
    assert len({samples[0].text for samples in answers}) > 20


def test_seeds_make_samples_differ_and_come_again(server):
    sampling = Sampling(num_samples=3, temperature=1.0, max_new_tokens=16, seed=8)
    first, again = (
        ask(server.root, REQUESTS[:4], sampling, server_concurrency=12) for _ in range(2)
    )
    texts = [[one.text for one in samples] for samples in first]
    assert all(len(set(row)) == 3 for row in texts)
    # In another batch the last bits of a logit differ, which may turn a token; most answers are the same.
    same = sum(
        one.text == other.text
        for row, rows in zip(first, again, strict=True)
        for one, other in zip(row, rows, strict=True)
    )
    assert same >= 8


def test_bursts_of_refusals_cut_answers_and_hangs_lose_nothing(server, calm):
    faults = ("429", "503", "cut", "stall", "reset")
    seen, (_, seconds) = Seen(), calm
    with FlakyProxy(server.root, share=0.3, seed=2, faults=faults) as proxy:
        # Only what hangs may take so long, on a slow machine, too.
        answers = ask(proxy.address, progress=seen, server_timeout=5 + 5 * seconds)
    assert set(proxy.lost) == set(faults)
    assert_each_is_answered_once(answers)
    assert seen.done == list(range(len(REQUESTS) + 1))  # every problem once, none twice


def test_a_server_that_is_killed_and_started_again_loses_nothing(server):
    sampling = Sampling(num_samples=2, temperature=0.0, max_new_tokens=64, seed=0)
    killed = threading.Event()

    class Killing(Seen):
        def __call__(self, done, total, *_):
            super().__call__(done, total)
            if done == 10 and not killed.is_set():
                killed.set()
                server.kill()
                server.start()

    seen = Killing()
    answers = ask(server.root, sampling=sampling, progress=seen)
    assert killed.is_set()
    assert_each_is_answered_once(answers, sampling)
    assert seen.done == list(range(2 * len(REQUESTS) + 1))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("another", {}, "serves smol, not another; set teacher.model"),
        ("smol", {"server_key": None}, r"rejects the key \(401\); set COTPIPE_SERVER_KEY"),
        ("smol", {"server_key": "wrong"}, r"rejects the key \(401\); set COTPIPE_SERVER_KEY"),
    ],
)
def test_what_does_not_fit_is_one_line(server, caplog, name, changes, message):
    server.wait()
    with (
        pytest.raises(UserError, match=message) as raised,
        open_servers(Model(name), settings(server.root, **changes)),
    ):
        pass
    assert "\n" not in str(raised.value)
    assert KEY not in str(raised.value) + caplog.text


def test_a_prompt_that_is_too_long_costs_itself_alone(server):
    long = Request("p-long", question_prompt("many words " * 300))
    (fine,), (refused,) = ask(server.root, [REQUESTS[0], long])
    assert (bool(fine.text), fine.refused) == (True, "")
    assert refused.text == ""
    assert "context length" in refused.refused
