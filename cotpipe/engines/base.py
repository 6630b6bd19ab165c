"""The protocol of text generation engines: requests in, completions out."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from cotpipe.errors import UserError
from cotpipe.extensions import Registry
from cotpipe.progress import Progress
from cotpipe.randomness import named_seed
from cotpipe.rationale.format import split_thinking
from cotpipe.rationale.prompts import Message
from cotpipe.settings import Settings


@dataclass(frozen=True)
class Model:
    """The model to run: a checkpoint folder, a hub id, or a model name on a server."""

    name: str
    revision: str | None = None  # of a hub id
    adapter: str | None = None  # folder of a LoRA adapter
    chat_template: str | None = None  # Jinja text; default: the model's own
    template_options: Mapping[str, Any] = field(default_factory=dict)  # template variables


@dataclass(frozen=True)
class Request:
    """A prompt to complete."""

    problem_id: str
    prompt: list[Message]


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters; a temperature of 0 means greedy decoding."""

    num_samples: int
    temperature: float
    max_new_tokens: int
    seed: int
    top_p: float = 1.0
    stop: tuple[str, ...] = ()  # stop strings, not included in the completion

    def seed_of(self, problem_id: str, number: int) -> int:
        """The seed of one sample, below 2**31, for engines with per-request seeds."""
        return named_seed(self.seed, "sample", problem_id, number) % 2**31


@dataclass(frozen=True)
class Generated:
    """A completion, with the model's thinking split off.

    `num_tokens` includes thinking and the end token; `truncated` means that it hit the token limit.
    """

    text: str
    num_tokens: int
    truncated: bool
    thoughts: str = ""
    refused: str = ""  # why the model could not be asked; the text is empty then


class PromptTooLongError(Exception):
    """A prompt leaves no room for a completion; concerns that request alone."""


def refused(error: PromptTooLongError, sampling: Sampling) -> list[Generated]:
    """What an engine returns for a request whose prompt is too long."""
    return [Generated("", 0, truncated=False, refused=str(error))] * sampling.num_samples


class Engine(Protocol):
    """Generates completions for prompts."""

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, progress: Progress
    ) -> list[list[Generated]]:
        """Generate `sampling.num_samples` completions per request; one list per request, in order.

        Args:
            requests: The prompts.
            sampling: Sampling parameters.
            progress: Receives the number of finished completions.

        A prompt that leaves no room for a completion is answered with `refused`. Raises `UserError`
        for what the user has to fix.
        """
        ...


Opener = Callable[[Model, Settings], AbstractContextManager[Engine]]
"""Opens an engine with a model for a `with` block; raises `UserError` if the engine is not
installed or cannot open the model."""

engines: Registry[Opener] = Registry("engine", "reference", "auto")
"""`reference` and `auto` are resolved by the teacher's step and `choice`."""


def as_generated(text: str, num_tokens: int, truncated: bool, thoughts: str = "") -> Generated:
    """Build a completion from model output; splits off inline thinking (`<think>`).

    Args:
        text: The generated text.
        num_tokens: Number of generated tokens.
        truncated: Whether generation stopped at the token limit.
        thoughts: Thinking that the engine returned separately.
    """
    # A truncated text may end in a lone surrogate, which cannot be encoded.
    inside, visible = split_thinking(text.encode("utf-8", "replace").decode())
    return Generated(visible, num_tokens, truncated, thoughts or inside)


def tokens_of(
    request: Request, sampling: Sampling, model: Model, tokenizer: Any, context: int
) -> list[int]:
    """Render and tokenize the prompt of a request.

    Args:
        request: The request.
        sampling: Sampling parameters.
        model: The model, with its chat template and template options.
        tokenizer: The model's Hugging Face tokenizer.
        context: Context length of the model in tokens.

    Raises `PromptTooLongError` if prompt plus `sampling.max_new_tokens` exceeds the context, and
    `UserError` if any prompt would.
    """
    if sampling.max_new_tokens >= context:
        raise UserError(
            f"max_new_tokens ({sampling.max_new_tokens}) leaves no room for a prompt in "
            f"{model.name}'s context of {context}; lower it, or choose a model with a longer context"
        )
    text = tokenizer.apply_chat_template(
        request.prompt,
        tokenize=False,
        add_generation_prompt=True,
        chat_template=model.chat_template,
        **model.template_options,
    )
    tokens: list[int] = tokenizer.encode(text, add_special_tokens=False)
    if len(tokens) + sampling.max_new_tokens > context:
        raise PromptTooLongError(
            f"prompt ({len(tokens)} tokens) plus max_new_tokens ({sampling.max_new_tokens}) exceed "
            f"{model.name}'s context of {context}"
        )
    return tokens


def end_tokens(generation_config: Any, tokenizer: Any) -> set[int]:
    """All tokens that end an answer: the tokenizer's, and those of the generation config."""
    configured = generation_config.eos_token_id
    several = configured if isinstance(configured, list) else [configured]
    return {token for token in (tokenizer.eos_token_id, *several) if token is not None}
