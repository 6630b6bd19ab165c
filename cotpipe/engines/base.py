"""The protocol of every text generation engine: requests in, samples out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cotpipe.errors import UserError
from cotpipe.prompts import Message
from cotpipe.randomness import named_seed
from cotpipe.rationale import split_thinking

Report = Callable[[int, int], None]
"""Called with how many answers are done, and out of how many."""


@dataclass(frozen=True)
class Model:
    """Who answers: a checkpoint's folder, a hub id, or the name by which a server knows it."""

    name: str
    revision: str | None = None  # of a hub id
    adapter: str | None = None  # folder of a LoRA adapter on top of it
    chat_template: str | None = None  # Jinja text; default: the model's own
    template_options: Mapping[str, Any] = field(default_factory=dict)  # what the template is rendered with


@dataclass(frozen=True)
class Request:
    """One prompt to answer."""

    problem_id: str
    prompt: list[Message]


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn; a temperature of 0 is greedy."""

    num_samples: int
    temperature: float
    max_new_tokens: int
    seed: int
    top_p: float = 1.0
    stop: tuple[str, ...] = ()  # texts before which an answer ends

    def seed_of(self, problem_id: str, number: int) -> int:
        """The seed of one sample, below 2**31; engines that sample each answer on its own use it."""
        return named_seed(self.seed, "sample", problem_id, number) % 2**31


@dataclass(frozen=True)
class Generated:
    """One answer, without what the model only thought.

    `num_tokens` counts thoughts and the end token, too; `truncated` says that it was cut off before that.
    """

    text: str
    num_tokens: int
    truncated: bool
    thoughts: str = ""


class Engine(Protocol):
    """Anything that answers prompts."""

    def generate(self, requests: Sequence[Request], sampling: Sampling, report: Report) -> list[list[Generated]]:
        """Answer every request `sampling.num_samples` times; one list of samples per request, in their order.

        Raises `UserError` for a prompt that leaves no room for an answer, and what else the user can set right.
        """
        ...


def as_generated(text: str, num_tokens: int, truncated: bool, thoughts: str = "") -> Generated:
    """An answer from what a model wrote; thoughts in it (`<think>`) are put apart."""
    inside, visible = split_thinking(text.encode("utf-8", "replace").decode())  # half a character is none
    return Generated(visible, num_tokens, truncated, thoughts or inside)


def tokens_of(request: Request, sampling: Sampling, model: Model, tokenizer: Any, context: int) -> list[int]:
    """The prompt of a request as the model reads it.

    Raises `UserError` where it leaves no room for `sampling.max_new_tokens` in a context of so many tokens.
    """
    text = tokenizer.apply_chat_template(
        request.prompt,
        tokenize=False,
        add_generation_prompt=True,
        chat_template=model.chat_template,
        **model.template_options,
    )
    tokens: list[int] = tokenizer.encode(text, add_special_tokens=False)
    if len(tokens) + sampling.max_new_tokens > context:
        raise UserError(
            f"problem {request.problem_id}: its prompt takes {len(tokens)} tokens, and with {sampling.max_new_tokens} "
            f"new ones that is more than {model.name}'s context of {context}; lower max_new_tokens, take the problem "
            "out, or choose a model with a longer context"
        )
    return tokens
