"""The transformers engine on a tiny student."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cotpipe.engines.base import Model, Request, Sampling
from cotpipe.engines.transformers_engine import TransformersEngine
from cotpipe.errors import UserError
from cotpipe.progress import Silent
from cotpipe.rationale.prompts import question_prompt

REQUESTS = [Request(f"id{number}", question_prompt("x" * (1 + 5 * number))) for number in range(7)]


class Seen(Silent):
    """What an engine reports: how many answers are done, out of how many."""

    def __init__(self):
        self.calls = []

    def __call__(self, done, total, *_):
        self.calls.append((done, total))


@pytest.fixture
def stopping_student(tiny_student, tmp_path):
    """The tiny student with a raised end token, so that answers end at different lengths."""
    model = AutoModelForCausalLM.from_pretrained(tiny_student)
    with torch.no_grad():
        model.model.embed_tokens.weight[2] *= 6  # the head is tied to it
    model.save_pretrained(tmp_path / "stopping")
    AutoTokenizer.from_pretrained(tiny_student).save_pretrained(tmp_path / "stopping")
    return tmp_path / "stopping"


def test_every_end_token_of_the_generation_config_ends_an_answer(stopping_student, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(stopping_student)
    tokenizer = AutoTokenizer.from_pretrained(stopping_student)
    tokenizer.eos_token = "<|endoftext|>"  # the raised one is an end by the generation config alone
    model.generation_config.eos_token_id = [0, 2]
    model.save_pretrained(tmp_path / "both")
    tokenizer.save_pretrained(tmp_path / "both")
    sampling = Sampling(num_samples=3, temperature=1.0, max_new_tokens=150, seed=5)
    engine = TransformersEngine(Model(str(tmp_path / "both")), 4)
    answers = [one for row in engine.generate(REQUESTS, sampling, Silent()) for one in row]
    assert any(not one.truncated for one in answers)
    assert all(one.truncated == (one.num_tokens == 150) for one in answers)


def texts(samples):
    return [[one.text for one in row] for row in samples]


def test_every_request_is_answered_k_times_and_sampling_is_reproducible(stopping_student):
    sampling = Sampling(num_samples=3, temperature=1.0, max_new_tokens=150, seed=5)
    seen = Seen()
    first = TransformersEngine(Model(str(stopping_student)), 4).generate(REQUESTS, sampling, seen)
    again = TransformersEngine(Model(str(stopping_student)), 4).generate(
        REQUESTS, sampling, Silent()
    )
    assert [len(row) for row in first] == [3] * 7
    assert first == again
    assert seen.calls[-1] == (21, 21)
    lengths = [one.num_tokens for row in first for one in row]
    assert len(set(lengths)) > 3
    assert max(lengths) <= 150
    assert all(one.truncated == (one.num_tokens == 150) for row in first for one in row)


def test_the_batch_changes_no_greedy_answer(tiny_student):
    sampling = Sampling(num_samples=1, temperature=0.0, max_new_tokens=90, seed=0)
    whole, small = (
        TransformersEngine(Model(str(tiny_student)), size, "float32").generate(
            REQUESTS, sampling, Silent()
        )
        for size in (7, 3)
    )
    assert texts(small) == texts(whole)


def test_an_answer_ends_before_a_stop_string(stopping_student):
    engine = TransformersEngine(Model(str(stopping_student)), 4)
    free = Sampling(num_samples=1, temperature=0.0, max_new_tokens=150, seed=0)
    text = engine.generate(REQUESTS[:1], free, Silent())[0][0].text
    stop = text[20:23]
    (answer,) = engine.generate(REQUESTS[:1], replace(free, stop=(stop,)), Silent())[0]
    assert answer.text == text[: text.find(stop)]
    assert answer.num_tokens < 150
    assert not answer.truncated


def test_a_question_longer_than_the_context_costs_the_others_nothing(tiny_student):
    long = Request("id9", question_prompt("x" * 1000))
    engine, sampling = TransformersEngine(Model(str(tiny_student)), 4), Sampling(2, 0.0, 64, 0)
    first, refused, last = engine.generate([REQUESTS[0], long, REQUESTS[1]], sampling, Silent())
    assert texts([first, last]) == texts(engine.generate(REQUESTS[:2], sampling, Silent()))
    assert all("plus max_new_tokens (64) exceed" in one.refused for one in refused)
    assert len(refused) == 2


def test_no_room_for_any_prompt_is_told_with_the_way_out(tiny_student):
    engine = TransformersEngine(Model(str(tiny_student)), 4)
    with pytest.raises(UserError, match=r"max_new_tokens \(1024\) leaves no room.*lower it"):
        engine.generate(REQUESTS[:1], Sampling(1, 0.0, 1024, 0), Silent())
