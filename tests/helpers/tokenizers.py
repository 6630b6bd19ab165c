"""Tokenizers of the shapes that models are published with: end tokens and chat templates, on bytes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_CHATML_WITH_DEFAULT = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    + _CHATML
)
_LLAMA = (
    "{% for message in messages %}{% set turn = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' %}{{ (bos_token if loop.first else '') + turn }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
_GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
_MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
_THINKING = _CHATML.replace(
    "{{ message['content'] +",
    "{{ ('<think>\n\n</think>\n\n' if loop.last and message['role'] == 'assistant' else '') + message['content'] +",
).replace("assistant\n' }}", "assistant\n<think>\n' }}")


@dataclass(frozen=True)
class Shape:
    """What a published tokenizer says of itself, and the end token that a student of it needs."""

    template: str | None
    tokens: tuple[str, ...]  # all special tokens
    eos: str | None
    end: str  # what the assistant's turn ends with
    pad: str | None = None
    bos: str | None = None


_QWEN = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_LLAMA_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)
SHAPES = {
    "Qwen2.5 base": Shape(
        _CHATML_WITH_DEFAULT, _QWEN, "<|endoftext|>", "<|im_end|>", pad="<|endoftext|>"
    ),
    "Qwen2.5 instruct": Shape(
        _CHATML_WITH_DEFAULT, _QWEN, "<|im_end|>", "<|im_end|>", pad="<|endoftext|>"
    ),
    "Llama 3 instruct": Shape(
        _LLAMA, _LLAMA_TOKENS, "<|eot_id|>", "<|eot_id|>", bos="<|begin_of_text|>"
    ),
    "Llama 3 with the base's end": Shape(
        _LLAMA, _LLAMA_TOKENS, "<|end_of_text|>", "<|eot_id|>", bos="<|begin_of_text|>"
    ),
    "Gemma": Shape(
        _GEMMA,
        ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
        "<eos>",
        "<end_of_turn>",
        pad="<pad>",
        bos="<bos>",
    ),
    "Mistral": Shape(_MISTRAL, ("<s>", "</s>"), "</s>", "</s>", bos="<s>"),
    "SmolLM2": Shape(_CHATML, _QWEN, "<|im_end|>", "<|im_end|>", pad="<|im_end|>"),
    "one that thinks": Shape(_THINKING, _QWEN, "<|im_end|>", "<|im_end|>", pad="<|endoftext|>"),
    "without a template": Shape(None, ("<|endoftext|>",), "<|endoftext|>", "<|endoftext|>"),
}


def tokenizer_of(shape: Shape) -> Any:
    """A byte-level tokenizer of that shape."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    # Two line feeds are one token at the end of a prompt, and two before a word, as in GPT-2.
    symbols = [*shape.tokens, *sorted(pre_tokenizers.ByteLevel.alphabet()), "ĊĊ"]
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ċ", "Ċ")]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(list(shape.tokens))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token=shape.eos, pad_token=shape.pad, bos_token=shape.bos
    )
    tokenizer.chat_template = shape.template
    return tokenizer


def save_model(shape: Shape, folder: Path, ends: int | list[int] | None = None) -> Path:
    """Save a one-layer model with a tokenizer of that shape; `ends` is for its generation config."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tokenizer_of(shape)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=None,
        tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    if ends is not None:
        model.generation_config.eos_token_id = ends
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
