"""Packed rows give the log-probabilities, entropies and gradients of separate ones."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from cotpipe.training.packing import (
    PACKED,
    inputs_of,
    is_worth_packing,
    pack,
    pack_rows,
)
from tests.helpers.families import FAMILIES, PADDING, config_of


def model_of(family: str, attention: str, **fields):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        config_of(family, sliding_window=None, **fields), attn_implementation=attention
    )
    add_fused_lm_head(model, temperature=0.7, outputs=("log_probs", "entropy"))
    return model.train()


def micro_batch(prompt_lengths: list[int], of_row: list[int], lengths: list[int]):
    """Rows of left-padded prompts and right-padded completions: tokens, and their mask."""
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(3, 61, (length,), generator=generator) for length in prompt_lengths]
    before, behind = max(prompt_lengths), max(lengths)
    rows = torch.full((len(of_row), before + behind), PADDING)
    mask = torch.zeros_like(rows)
    for row, (number, length) in enumerate(zip(of_row, lengths, strict=True)):
        prompt = prompts[number]
        rows[row, before - len(prompt) : before] = prompt
        rows[row, before : before + length] = torch.randint(3, 61, (length,), generator=generator)
        mask[row, before - len(prompt) : before + length] = 1
    return rows, mask, behind


def separate(model, rows, mask, count):
    labels = rows.masked_fill(mask == 0, -100)
    labels[:, :-count] = -100
    outputs = model(input_ids=rows, attention_mask=mask, labels=labels, fused_lm_head=True)
    return outputs.log_probs[:, -count:], outputs.entropy[:, -count:]


def together(model, rows, mask, count):
    packed = pack(rows, mask, count)
    outputs = model(**inputs_of(packed), fused_lm_head=True)
    return packed.unpack(outputs.log_probs), packed.unpack(outputs.entropy)


def assert_equal(family, rows, mask, count, **fields):
    found = []
    for attention, compute in (("eager", separate), (PACKED, together)):
        model = model_of(family, attention, **fields)
        log_probs, entropies = compute(model, rows, mask, count)
        weights = torch.linspace(-1, 1, log_probs.numel()).view_as(log_probs)
        (log_probs * weights + 0.1 * entropies).sum().backward()
        gradients = {name: each.grad for name, each in model.named_parameters()}
        found.append((log_probs.detach(), entropies.detach(), gradients))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
    assert found[0][0].abs().sum() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_groups_of_a_micro_batch_are_as_if_separate(family):
    assert_equal(family, *micro_batch([5, 9, 1], [0, 0, 0, 1, 1, 2], [4, 7, 1, 3, 6, 5]))


@pytest.mark.parametrize(
    ("prompt_lengths", "of_row", "lengths"),
    [
        ([6], [0, 0, 0], [5, 5, 5]),
        ([6], [0], [5]),
        ([1], [0, 0], [3, 2]),
        ([4, 8], [0, 1, 0, 1, 0], [3, 4, 0, 2, 6]),
    ],
    ids=["equal lengths", "one row", "prompt of one token", "mixed up, one left out"],
)
def test_odd_micro_batches_are_as_if_separate(prompt_lengths, of_row, lengths):
    assert_equal("llama", *micro_batch(prompt_lengths, of_row, lengths))


@pytest.mark.parametrize("heads", [1, 4])
def test_any_number_of_key_heads(heads):
    config = config_of("qwen2").to_dict() | {"num_key_value_heads": heads}
    found = []
    for attention, compute in (("eager", separate), (PACKED, together)):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**config), attn_implementation=attention
        )
        add_fused_lm_head(model, outputs=("log_probs", "entropy"))
        found.append(compute(model, *micro_batch([5, 3], [0, 0, 1, 1], [4, 2, 6, 1])))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


def test_gradient_checkpointing_computes_the_same():
    rows = micro_batch([5, 9], [0, 0, 1, 1], [4, 7, 3, 6])
    gradients = []
    for is_on in (False, True):
        model = model_of("llama", PACKED)
        if is_on:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        together(model, *rows)[0].sum().backward()
        gradients.append(model.model.embed_tokens.weight.grad)
    torch.testing.assert_close(*gradients)


def test_without_any_completion_the_gradient_is_zero_everywhere():
    rows, mask, count = micro_batch([5, 9], [0, 0, 1], [4, 7, 3])
    mask[:, -count:] = 0
    model = model_of("llama", PACKED)
    log_probs, _ = together(model, rows, mask, count)
    log_probs.sum().backward()
    assert log_probs.shape == (3, count)
    assert not log_probs.any()
    assert all(not each.grad.any() for each in model.parameters())


def test_a_prompt_is_packed_once():
    packed = pack(*micro_batch([5, 9], [0, 0, 0, 1], [4, 7, 1, 3]))
    assert packed.input_ids.shape == (1, 5 - 1 + 9 - 1 + 4 + 7 + 1 + 3)


def test_packing_is_for_rows_with_something_in_common():
    assert is_worth_packing(*micro_batch([5, 5], [0, 0, 1], [2, 2, 2]))
    assert not is_worth_packing(*micro_batch([5, 5, 4], [0, 1, 2], [2, 2, 2]))
    assert is_worth_packing(*micro_batch([5, 5], [0, 1], [2, 0]))


def rows_to_learn(*rows: str):
    """A letter is a token that is to be learnt, a digit one that is not; right-padded."""
    width = max(map(len, rows))
    tokens = torch.tensor([[ord(each) for each in row.ljust(width, " ")] for row in rows]) - 45
    mask = torch.tensor([[int(each != " ") for each in row.ljust(width)] for row in rows])
    labels = tokens.masked_fill((tokens < 20) | (mask == 0), -100)
    return tokens.masked_fill(mask == 0, PADDING), mask, labels


LEARNT = {
    "a common beginning": ("1234abc", "12356ab", "123XYZabc"),
    "nothing in common": ("12ab", "34abcd", "5AB"),
    "equal rows": ("12ab", "12ab"),
    "one is the beginning of the other": ("12", "12ab"),
    "learnt from the first token on": ("abc", "abd"),
    "one row": ("12abc",),
    "nothing to learn": ("123", "124"),
}


@pytest.mark.parametrize("rows", LEARNT.values(), ids=LEARNT)
def test_rows_behind_what_they_have_in_common_are_as_if_separate(rows):
    found = []
    for attention in ("eager", PACKED):
        model = model_of("llama", attention)
        tokens, mask, labels = rows_to_learn(*rows)
        if attention == PACKED:
            inputs = inputs_of(pack_rows(tokens, mask, labels))
        else:
            inputs = {"input_ids": tokens, "attention_mask": mask, "labels": labels}
        outputs = model(**inputs, fused_lm_head=True)
        (outputs.log_probs.sum() + 0.1 * outputs.entropy.sum()).backward()
        gradients = {name: each.grad for name, each in model.named_parameters()}
        found.append((outputs.log_probs.sum().detach(), outputs.label_mask.sum(), gradients))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


def test_padding_on_the_left_is_no_token_either():
    tokens, mask, labels = rows_to_learn("123abc", "12ab")
    right = pack_rows(tokens, mask, labels)
    rolled = [torch.stack([each[0], each[1].roll(2)]) for each in (tokens, mask, labels)]
    assert pack_rows(*rolled).input_ids.tolist() == right.input_ids.tolist()


def test_what_rows_have_in_common_is_packed_once():
    packed = pack_rows(*rows_to_learn("1234abc", "12356ab", "123XYZabc"))
    assert packed.input_ids.shape == (1, 2 + 4 + 4 + 6)
