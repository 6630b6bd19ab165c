"""The `vllm` engine: vLLM in this process, and the steps that use it."""

import json

import pytest

from cotpipe.curriculum import STEPS
from cotpipe.engines.base import Model, Request, Sampling
from cotpipe.engines.choice import choose_engine, open_engine
from cotpipe.errors import UserError
from cotpipe.prompts import question_prompt
from cotpipe.recipes import load_recipe
from cotpipe.settings import Settings
from cotpipe.steps.step import Silent, StepRunner
from cotpipe.store import open_store

REQUESTS = [Request(f"p{number}", question_prompt(f"What is {number} + {number + 1}?")) for number in range(12)]
SETTINGS = Settings(context_length=512)


@pytest.fixture(scope="module")
def engine(model):
    with open_engine("vllm", Model(str(model)), SETTINGS, print) as opened:
        yield opened


@pytest.fixture(scope="module")
def adapter(model, tmp_path_factory):
    """A LoRA adapter that changes every answer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(model), LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    )
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    folder = tmp_path_factory.mktemp("adapter")
    adapted.save_pretrained(folder)
    return folder


def texts(answers):
    return [[one.text for one in samples] for samples in answers]


def test_every_request_is_answered_k_times_and_sampling_is_reproducible(engine):
    sampling, seen = Sampling(3, 1.0, 24, seed=5, top_p=0.95), []
    first = engine.generate(REQUESTS, sampling, lambda *done: seen.append(done))
    assert texts(first) == texts(engine.generate(REQUESTS, sampling, lambda *done: None))
    assert [len(samples) for samples in first] == [3] * 12
    assert all(len(set(row)) == 3 for row in texts(first))
    assert seen[-1][1] == 36
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    for one in (one for samples in first for one in samples):
        assert one.truncated == (one.num_tokens == 24)


def test_an_answer_ends_before_a_stop_text(engine):
    sampling = Sampling(1, 0.0, 48, seed=0)
    free = engine.generate(REQUESTS[:3], sampling, lambda *done: None)
    stop = free[0][0].text[5:9]
    stopped = engine.generate(REQUESTS[:3], Sampling(1, 0.0, 48, 0, stop=(stop,)), lambda *done: None)
    assert stopped[0][0].text == free[0][0].text[:5]
    assert not stopped[0][0].truncated


def test_a_prompt_that_is_too_long_names_its_problem(engine):
    long = [Request("p-long", question_prompt("many words " * 300))]
    with pytest.raises(UserError, match=r"problem p-long: its prompt takes \d+ tokens.*context of 512; lower"):
        engine.generate(long, Sampling(1, 0.0, 32, 0), lambda *done: None)


def test_an_adapter_changes_the_answers(engine, model, adapter):
    sampling = Sampling(1, 0.0, 16, seed=0)
    with open_engine("vllm", Model(str(model), adapter=str(adapter)), SETTINGS, print) as adapted:
        answers = adapted.generate(REQUESTS[:4], sampling, lambda *done: None)
    assert texts(answers) != texts(engine.generate(REQUESTS[:4], sampling, lambda *done: None))


def test_what_is_no_model_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "none"}))
    with (
        pytest.raises(UserError, match="vLLM cannot open") as raised,
        open_engine("vllm", Model(str(tmp_path)), SETTINGS, print),
    ):
        pass
    assert "\n" not in str(raised.value)


def test_auto_takes_vllm_where_it_is_installed():
    assert choose_engine("auto") == ("vllm", "it is installed, for CPUs")


class Noting(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def test_mining_and_evaluation_start_one_engine_each(model, tmp_path):
    overrides = [f"student.model={model}", "mining.max_problems=9", "mining.max_new_tokens=24", "mining.num_samples=3"]
    recipe = load_recipe("demo", [*overrides, "evaluation.max_problems=9", "evaluation.max_new_tokens=24"])
    settings, report = Settings(store=str(tmp_path), engine="auto", shard_size=2, context_length=512), Noting()
    runner = StepRunner(open_store(settings), settings, report)
    found = {}
    for kind in ("problems", "student", "rationales", "lessons"):
        found[kind] = runner.run(STEPS[kind], recipe, {name: found[name] for name in STEPS[kind].inputs}).reference
    for kind, inputs in (("evaluation-base", found), ("failures", found | {"stage2": found["student"]})):
        report.notes.clear()
        outcome = runner.run(STEPS[kind], recipe, inputs)
        assert len(outcome.record.parts) == 5
        assert outcome.record.counts["problems"] == 9
        assert report.notes == ["engine vllm: it is installed, for CPUs"]
