"""How a chat template writes a conversation: prompt, answer, and the token that ends a turn.

A student stops where it has learnt to: it must see, after every target, the token at which engines
stop. That is the token that its chat template writes after the assistant's text.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cotpipe.rationale.prompts import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_QUESTION = Message(role="user", content="What is 3 + 4?")
_ANSWER = "Step 1: 3 + 4 = 7\nAnswer: 7"


def turn_end(tokenizer: "PreTrainedTokenizerBase") -> int | None:
    """The first added token (as `<|im_end|>`) that the chat template writes after an answer.

    None if it writes none, or does not write the answer itself.
    """
    text = _render(tokenizer, [_QUESTION, Message(role="assistant", content=_ANSWER)])
    _, found, after = text.rpartition(_ANSWER)
    if not found:
        return None
    added = {*tokenizer.added_tokens_decoder, *tokenizer.all_special_ids}
    return next((token for token in _encode(tokenizer, after) if token in added), None)


def prompt_text(tokenizer: "PreTrainedTokenizerBase", prompt: Sequence[Message]) -> str:
    """A prompt as text, up to where the assistant begins to write."""
    return _render(tokenizer, prompt, add_generation_prompt=True)


def prompt_tokens(tokenizer: "PreTrainedTokenizerBase", prompt: Sequence[Message]) -> list[int]:
    """The tokens of a prompt, up to where the assistant begins to write."""
    return _encode(tokenizer, prompt_text(tokenizer, prompt))


def target_tokens(
    tokenizer: "PreTrainedTokenizerBase", prompt: Sequence[Message], target: str
) -> tuple[list[int], list[int]]:
    """The tokens of a prompt with its target, and a mask: 1 for those of the target, else 0.

    The last one is the end token: what a template writes after it (such as a line feed) is left
    out, as an engine never gets that far.

    Raises `ValueError` if the template does not end the target with the tokenizer's end token.
    """
    asked = prompt_text(tokenizer, prompt)
    whole = _render(tokenizer, [*prompt, Message(role="assistant", content=target)])
    if not whole.startswith(asked):  # some templates write more before an answer than in a history
        whole = asked + whole[whole.rindex(target) :]
    tokens, start = _encode(tokenizer, whole), _encode(tokenizer, asked)
    if tokens[: len(start)] != start:  # engines continue from the prompt's own tokens
        tokens = start + _encode(tokenizer, whole[len(asked) :])
    learnt = tokens[len(start) :]
    while learnt and learnt[-1] != tokenizer.eos_token_id:
        learnt.pop()
    if not learnt:
        raise ValueError(
            f"the chat template does not end an answer with the end token {tokenizer.eos_token!r}"
        )
    return start + learnt, [0] * len(start) + [1] * len(learnt)


def _render(tokenizer: Any, messages: Sequence[Message], **options: bool) -> str:
    text: str = tokenizer.apply_chat_template(list(messages), tokenize=False, **options)
    return text


def _encode(tokenizer: Any, text: str) -> list[int]:
    tokens: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return tokens
