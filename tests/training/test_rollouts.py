"""The student's own writing, many completions to a prompt."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from cotpipe.hardware.attention import GROUPED
from cotpipe.training.rollouts import Rollouts, draw
from cotpipe.training.student import merged_weights

PROMPTS = ["How many birds?", "Two and two", "A", "A longer question about many other birds"]


@pytest.fixture
def student(tiny_student):
    model = AutoModelForCausalLM.from_pretrained(tiny_student, attn_implementation=GROUPED)
    with torch.no_grad():  # livelier than random weights, which repeat one token
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    return model.eval(), AutoTokenizer.from_pretrained(tiny_student, padding_side="left")


def prompts_of(tokenizer) -> list[list[int]]:
    return [tokenizer(text)["input_ids"] for text in PROMPTS]


def generated(model, tokenizer, max_new_tokens: int, ends: list[int]) -> list[list[int]]:
    """What transformers' `generate` writes greedily, prompt by prompt, up to its end token."""
    written = []
    for prompt in prompts_of(tokenizer):
        output = model.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=max_new_tokens,
            eos_token_id=ends, pad_token_id=0,
        )  # fmt: skip
        written.append(output[0, len(prompt) :].tolist())
    return written


@pytest.mark.parametrize("is_simple", [True, False], ids=["in place", "by generate"])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_greedy_completions_are_those_of_generate(student, batch_size, is_simple, monkeypatch):
    monkeypatch.setattr("cotpipe.training.rollouts.can_be_packed", lambda config: is_simple)
    model, tokenizer = student
    free = generated(model, tokenizer, 24, [])
    # End tokens that are written early in some rows and never in others.
    ends = [tokenizer.eos_token_id, free[0][3], free[1][9]]
    model.generation_config.eos_token_id = ends
    expected = generated(model, tokenizer, 24, ends)
    assert len({len(tokens) for tokens in expected}) > 1
    assert 24 in map(len, expected)
    found = Rollouts(model, tokenizer, batch_size).complete(prompts_of(tokenizer), 3, 0, 1, 24)
    assert found == [[tokens] * 3 for tokens in expected]


def test_a_prompt_is_computed_once_for_all_its_completions(student):
    model, tokenizer = student
    computed = []
    embedding = model.get_input_embeddings()
    embedding.register_forward_hook(lambda module, inputs, output: computed.append(inputs[0].shape))
    Rollouts(model, tokenizer).complete([[5, 6, 7], [8, 9]], 4, 1.0, 1.0, 1)
    assert computed == [(2, 3)]


def test_finished_completions_leave_the_batch(student):
    model, tokenizer = student
    free = generated(model, tokenizer, 24, [])
    model.generation_config.eos_token_id = [free[0][3]]
    sizes = []
    embedding = model.get_input_embeddings()
    embedding.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    found = Rollouts(model, tokenizer).complete(prompts_of(tokenizer), 1, 0, 1, 24)
    lengths = sorted(len(tokens) for (tokens,) in found)
    assert sizes[1:] == [sum(length > step for length in lengths) for step in range(1, lengths[-1])]


def test_the_same_seed_writes_the_same(student):
    model, tokenizer = student
    rollouts = Rollouts(model, tokenizer, 5)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(rollouts.complete(prompts_of(tokenizer), 4, 1.0, 0.9, 12))
    assert found[0] == found[1] != found[2]
    assert [len(completions) for completions in found[0]] == [4, 4, 4, 4]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_as_often_as_they_are_likely(temperature):
    torch.manual_seed(0)
    logits = torch.tensor([0.0, 1.0, -torch.inf, 2.0, 0.5])
    drawn = draw(logits.expand(40_000, -1), temperature, 1.0)
    shares = drawn.bincount(minlength=5) / len(drawn)
    torch.testing.assert_close(shares, (logits / temperature).softmax(0), rtol=0, atol=0.01)
    assert shares[2] == 0


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.05, {7}), (0.6, {7, 200}), (0.75, {7, 200, 3}), (0.9999, None)]
)
def test_tokens_are_drawn_from_the_nucleus(top_p, kept):
    torch.manual_seed(0)
    shares = torch.full((300,), 0.2 / 297)
    shares[[7, 200, 3]] = torch.tensor([0.4, 0.25, 0.15])
    drawn = draw(shares.log().expand(20_000, -1), 1.0, top_p)
    counts = drawn.bincount(minlength=300) / len(drawn)
    if kept is None:  # more tokens than are sorted at first
        assert (counts > 0).sum() == 300
        torch.testing.assert_close(counts, shares, rtol=0, atol=0.02)
    else:
        assert set(drawn.tolist()) == kept
        places = sorted(kept)
        expected = shares[places] / shares[places].sum()
        torch.testing.assert_close(counts[places], expected, rtol=0, atol=0.02)


def test_adapters_are_part_of_the_copy_and_stay_in_the_student(student):
    model, _ = student
    config = LoraConfig(
        r=2, lora_alpha=4, target_modules=["q_proj", "o_proj"], init_lora_weights=False
    )
    adapted = get_peft_model(model, config).eval()
    before = {name: each.clone() for name, each in adapted.named_parameters()}
    weights = dict(merged_weights(adapted))
    assert all(torch.equal(each, before[name]) for name, each in adapted.named_parameters())
    tokens = torch.arange(3, 20)[None]
    with torch.no_grad():
        expected = adapted(tokens).logits
        plain = adapted.merge_and_unload()
        assert weights.keys() == dict(plain.named_parameters()).keys()
        plain.load_state_dict(weights, strict=False)
        torch.testing.assert_close(plain(tokens).logits, expected, rtol=1e-4, atol=1e-4)
