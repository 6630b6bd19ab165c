"""The student's tokenizer: a chat template that takes our prompts, and the end token it writes."""

from typing import TYPE_CHECKING

from cotpipe.errors import UserError
from cotpipe.rationale.prompts import question_prompt
from cotpipe.rationale.turns import turn_end

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '\\n\\n' }}{% endfor %}"
)
"""Chat template of students without one."""
_SYSTEM_INTO_QUESTION = (
    "{% if messages[0]['role'] == 'system' %}{% set messages = [{'role': 'user', 'content': "
    "messages[0]['content'] + '\\n\\n' + messages[1]['content']}] + messages[2:] %}{% endif %}"
)
"""Put before templates that refuse a system message, as those of Gemma 2 and Mistral 7B."""


def prepare_tokenizer(tokenizer: "PreTrainedTokenizerBase", name: str) -> None:
    """Give a student's tokenizer what training and generation rely on.

    It gets a chat template that takes a system message, the template's end of a turn as its end
    token (a base model's own is another: its answers would never end), and a pad token.

    Raises `UserError`, with the student's `name`, if the template ends a turn with no token.
    """
    from jinja2 import TemplateError

    before = tokenizer.eos_token
    if tokenizer.chat_template is None:
        tokenizer.chat_template = _plain_template(tokenizer)
    if not _takes_system_message(tokenizer):
        tokenizer.chat_template = _SYSTEM_INTO_QUESTION + tokenizer.chat_template
    try:
        end = turn_end(tokenizer)
    except TemplateError as error:
        raise UserError(
            f"student.model: the chat template of {name!r} cannot write a question and its answer: "
            f"{error}; correct its chat template"
        ) from error
    if end is None:
        raise UserError(
            f"student.model: the chat template of {name!r} ends the assistant's turn with no special "
            "token, so the student could not learn where to stop; write {{ eos_token }} after the "
            "assistant's content in its chat template, and give its tokenizer an eos_token"
        )
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = before or tokenizer.eos_token
    tokenizer.clean_up_tokenization_spaces = False  # it would remove spaces from completions


def _plain_template(tokenizer: "PreTrainedTokenizerBase") -> str:
    """The plain template; with the start token where the tokenizer itself writes one."""
    begins = tokenizer.encode("1")[:1] == [tokenizer.bos_token_id]
    return ("{{ bos_token }}" if begins else "") + _PLAIN_TEMPLATE


def _takes_system_message(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether the template writes a system message, rather than raising or leaving it out."""
    from jinja2 import TemplateError

    instruction = "Solve step by step."
    try:
        prompt = question_prompt("1 + 1?", instruction)
        text = tokenizer.apply_chat_template(prompt, tokenize=False)  # type: ignore[arg-type]
    except TemplateError:
        return False
    return instruction in str(text)
