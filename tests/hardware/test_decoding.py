"""Writing completions with a model, many to a prompt."""

from random import Random

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from cotpipe.hardware.attention import GROUPED
from cotpipe.hardware.decoding import Decoder
from cotpipe.hardware.sampling import draw
from cotpipe.training.student import merged_weights
from tests.helpers.families import enliven, written_alone

PROMPTS = [
    "Count: How many birds?",
    "Count: Two and two",
    "Count: A",
    "Count: A longer question about many other birds",
    "Count: A",
]
ORDERS = {"with a common beginning": "Count: ", "without one": ""}


@pytest.fixture
def student(tiny_student):
    model = AutoModelForCausalLM.from_pretrained(tiny_student, attn_implementation=GROUPED)
    enliven(model)
    return model.eval(), AutoTokenizer.from_pretrained(tiny_student)


def prompts_of(tokenizer, common: str = "Count: ") -> list[list[int]]:
    return [tokenizer(text.replace("Count: ", common))["input_ids"] for text in PROMPTS]


def generated(model, prompts, max_new_tokens: int, ends: list[int]) -> list[list[int]]:
    """What `generate` writes for each prompt alone."""
    return [written_alone(model, prompt, max_new_tokens, ends) for prompt in prompts]


def passes_of(model) -> list[tuple[int, ...]]:
    """The shapes of the tokens that a model is given, from now on."""
    shapes: list[tuple[int, ...]] = []
    model.get_input_embeddings().register_forward_hook(
        lambda module, inputs, output: shapes.append(tuple(inputs[0].shape))
    )
    return shapes


@pytest.mark.parametrize("common", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("is_plain", [True, False], ids=["in place", "by generate"])
@pytest.mark.parametrize("batch_size", [1, 3, 4, 64])
def test_greedy_completions_are_those_of_generate(
    student, batch_size, is_plain, common, monkeypatch
):
    monkeypatch.setattr("cotpipe.hardware.decoding.has_plain_attention", lambda config: is_plain)
    model, tokenizer = student
    prompts = prompts_of(tokenizer, common)
    free = generated(model, prompts, 40, [])
    # End tokens that are written early in some rows and never in others; 40 is more than a block.
    ends = [tokenizer.eos_token_id, free[0][3], free[1][9]]
    expected = generated(model, prompts, 40, ends)
    assert len({len(tokens) for tokens in expected}) > 1
    assert 40 in map(len, expected)
    told: list[int] = []
    found = Decoder(model, ends, batch_size).complete(prompts, 3, 0, 1, 40, on_progress=told.append)
    assert found == [[tokens] * 3 for tokens in expected]
    assert told == sorted(told)
    assert told[-1] == 15


@pytest.mark.parametrize("pieces", [1, 40, 8192])
def test_prompts_computed_in_pieces_are_the_same(student, pieces, monkeypatch):
    monkeypatch.setattr("cotpipe.hardware.rows._MOST_TOKENS", pieces)
    model, tokenizer = student
    prompts = prompts_of(tokenizer)
    found = Decoder(model, []).complete(prompts, 2, 0, 1, 9)
    assert found == [[tokens] * 2 for tokens in generated(model, prompts, 9, [])]


def test_a_prompt_is_computed_once_for_all_its_completions(student):
    model, _ = student
    computed = passes_of(model)
    Decoder(model, []).complete([[5, 6, 7], [8, 9]], 4, 1.0, 1.0, 1)
    assert computed == [(2, 3)]


def test_what_prompts_have_in_common_is_computed_once(student):
    model, _ = student
    computed = passes_of(model)
    common = list(range(3, 15))
    Decoder(model, [], 3).complete([[*common, 5], [*common, 6, 7], common], 2, 1.0, 1.0, 1)
    assert computed[0] == (1, 11)  # a token of each prompt remains
    assert all(tokens <= 3 for _, tokens in computed[1:])


def test_waiting_completions_take_the_places_of_finished_ones(student):
    model, tokenizer = student
    prompts = prompts_of(tokenizer)
    free = generated(model, prompts, 24, [])
    ends = [free[0][3]]
    lengths = [len(tokens) for tokens in generated(model, prompts, 24, ends)]
    assert min(lengths) < 24 == max(lengths)
    computed = passes_of(model)
    Decoder(model, ends, 4).complete(prompts, 4, 0, 1, 24)
    steps = [rows for rows, tokens in computed if tokens == 1]
    assert max(steps) == 4
    assert sum(steps) == sum(4 * (length - 1) for length in lengths)
    # While completions wait, a free place is taken at once: one in four is free then.
    assert all(rows == 4 for rows in steps[: -max(lengths)])


@pytest.mark.parametrize("is_plain", [True, False], ids=["in place", "by generate"])
def test_a_completion_ends_where_the_caller_says(student, is_plain, monkeypatch):
    monkeypatch.setattr("cotpipe.hardware.decoding.has_plain_attention", lambda config: is_plain)
    model, tokenizer = student
    prompts = prompts_of(tokenizer)
    free = generated(model, prompts, 24, [])
    found = Decoder(model, [], 2).complete(
        prompts, 1, 0, 1, 24, is_stopped=lambda tokens: len(tokens) >= 5 and tokens[0] == free[0][0]
    )
    assert found == [[free[n][: 5 if free[n][0] == free[0][0] else 24]] for n in range(5)]


def test_the_same_seed_writes_the_same(student):
    model, tokenizer = student
    decoder = Decoder(model, [tokenizer.eos_token_id], 5)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(decoder.complete(prompts_of(tokenizer), 4, 1.0, 0.9, 12))
    assert found[0] == found[1] != found[2]
    assert [len(completions) for completions in found[0]] == [4, 4, 4, 4, 4]


def test_a_completion_with_a_seed_is_the_same_in_any_company(student):
    model, tokenizer = student
    prompts, ends = prompts_of(tokenizer), [tokenizer.eos_token_id]
    seeds = [11, 12, 13, 14, 15]
    sampling = (1, 1.0, 0.9, 12)
    together = Decoder(model, ends, 2).complete(prompts, *sampling, seeds=seeds)
    for place, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        assert Decoder(model, ends).complete([prompt], *sampling, seeds=[seed]) == [together[place]]
    others = Decoder(model, ends, 2).complete(prompts, *sampling, seeds=seeds[::-1])
    assert others[0] != together[0]


@pytest.mark.parametrize("is_plain", [True, False], ids=["in place", "by generate"])
def test_only_what_is_asked_for_decides_what_is_written(student, is_plain, monkeypatch):
    monkeypatch.setattr("cotpipe.hardware.decoding.has_plain_attention", lambda config: is_plain)
    model, tokenizer = student
    prompts = prompts_of(tokenizer)
    expected = Decoder(model, []).complete(prompts, 1, 0, 1, 24)
    model.generation_config.repetition_penalty = 3.0
    model.generation_config.min_new_tokens = 30
    own = model.generation_config
    assert Decoder(model, []).complete(prompts, 1, 0, 1, 24) == expected
    assert model.generation_config is own


def test_one_prompt_is_computed_once_however_many_samples_wait(student):
    model, tokenizer = student
    prompt = prompts_of(tokenizer)[3]
    computed = passes_of(model)
    Decoder(model, [], 4).complete([prompt], 16, 1.0, 1.0, 3)
    assert computed[0] == (1, len(prompt) - 1)
    assert all(tokens == 1 for _, tokens in computed[1:])


def test_no_prompt_is_no_completion(student):
    model, _ = student
    assert Decoder(model, []).complete([], 3, 0, 1, 8) == []


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("sources", [None, [Random(0)] * 40_000], ids=["torch", "own"])
def test_tokens_are_drawn_as_often_as_they_are_likely(temperature, sources):
    torch.manual_seed(0)
    logits = torch.tensor([0.0, 1.0, -torch.inf, 2.0, 0.5])
    drawn = draw(logits.expand(40_000, -1), temperature, 1.0, sources)
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
    if kept is None:
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
