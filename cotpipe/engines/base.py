"""The protocol of every text generation engine: requests in, samples out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cotpipe.prompts import Message

Report = Callable[[int, int], None]
"""Called with how many answers are done, and out of how many."""


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


@dataclass(frozen=True)
class Generated:
    """One answer; `num_tokens` counts the end token, `truncated` says that it was cut off before it."""

    text: str
    num_tokens: int
    truncated: bool


class Engine(Protocol):
    """Anything that answers prompts."""

    def generate(self, requests: Sequence[Request], sampling: Sampling, report: Report) -> list[list[Generated]]:
        """Answer every request `sampling.num_samples` times; one list of samples per request, in their order."""
        ...
