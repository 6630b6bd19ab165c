"""Generated word problems of chained arithmetic steps, with teacher-like rationales."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator
from typing_extensions import override

from cotpipe.data.problems.source import Reading, Source, sources
from cotpipe.data.rows import Problem
from cotpipe.randomness import named_random
from cotpipe.rationale.format import format_rationale
from cotpipe.section import NumRepeats, NumRows

_NAMES = {
    "She": (
        "Mia", "Ana", "Lena", "Zoe", "Ruth", "Ida", "Nora", "Priya", "Sara", "Eva", "Tess", "Yuki",
    ),
    "He": (
        "Tom", "Ben", "Omar", "Luis", "Max", "Ivan", "Paul", "Noah", "Amir", "Finn", "Hugo", "Raj",
    ),
}  # fmt: skip
_ITEMS = (
    "apples", "books", "coins", "shells", "stamps", "marbles", "pens", "cards", "eggs", "roses",
    "nuts", "beads", "plums", "stones", "tickets", "cookies", "buttons", "badges", "pears",
    "candles",
)  # fmt: skip

# Per operator: (question text, rationale text). `{k}` is the operand, `{he}` the pronoun.
_EVENTS: dict[str, tuple[tuple[str, str], ...]] = {
    "+": (
        ("{He} buys {k} more.", "buying {k} more"),
        ("A friend gives {him} {k} more.", "getting {k} from a friend"),
        ("{He} finds {k} more at home.", "finding {k} more"),
        ("{He} wins {k} more.", "winning {k} more"),
    ),
    "-": (
        ("{He} gives {k} away.", "giving {k} away"),
        ("{He} loses {k} of them.", "losing {k}"),
        ("{He} sells {k} of them.", "selling {k}"),
        ("{He} leaves {k} of them at school.", "leaving {k} at school"),
    ),
    "*": (
        ("An aunt makes it {k} times as many.", "getting {k} times as many"),
        ("Soon {he} has {k} times as many.", "having {k} times as many"),
    ),
    "/": (
        ("{He} shares them among {k} boxes and keeps one box.", "keeping one of {k} boxes"),
        ("{He} splits them into {k} equal piles and keeps one pile.", "keeping one of {k} piles"),
    ),
}
_PRONOUNS = {"She": ("she", "her"), "He": ("he", "him")}


@dataclass(frozen=True)
class _Step:
    operator: str
    operand: int
    before: int
    after: int
    told: str
    named: str

    @property
    def equation(self) -> str:
        return f"{self.before} {self.operator} {self.operand} = {self.after}"


@dataclass(frozen=True)
class _Story:
    name: str
    pronoun: str
    items: str
    start: int
    steps: tuple[_Step, ...]


@sources.register("arithmetic")
class ArithmeticSource(Source):
    """Word problems of chained arithmetic steps, generated with reference rationales."""

    kind: Literal["arithmetic"] = "arithmetic"
    num_problems: NumRows = Field(1500, description="Number of distinct problems to generate")
    min_steps: int = Field(2, ge=2, le=12, description="Minimum number of steps in a problem")
    max_steps: int = Field(4, ge=2, le=12, description="Maximum number of steps in a problem")
    max_number: int = Field(
        100, ge=10, le=10_000, description="Largest number in a problem and in its solution"
    )
    max_operand: int = Field(
        10, ge=2, le=1_000_000, description="Largest number that a step adds or subtracts"
    )
    max_factor: int = Field(
        3, ge=2, le=9, description="Largest number that a step multiplies or divides by"
    )
    num_rationales: NumRepeats = Field(
        1, description="Reference rationales per problem, in different wordings"
    )

    @model_validator(mode="after")
    def _steps_in_order(self) -> Self:
        if self.min_steps > self.max_steps:
            raise ValueError(
                f"min_steps ({self.min_steps}) is greater than max_steps ({self.max_steps})"
            )
        return self

    @override
    def read(self, reading: Reading) -> Iterator[Problem]:
        """Distinct problems, deterministic for the same fields and seed.

        Every step uses the result of the previous step. Difficulty grows with the number of steps
        and the largest number. The rationales of a problem differ in wording, length, and in which
        steps are merged, like samples of a real teacher.
        """
        seen: set[str] = set()
        number = 0
        while len(seen) < self.num_problems:
            rng = named_random(reading.seed, "arithmetic problem", number)
            number += 1
            story = _tell(rng, rng.randint(self.min_steps, self.max_steps), self)
            question = _question(story)
            if question in seen:
                continue
            seen.add(question)
            answer = str(story.steps[-1].after)
            texts = [
                format_rationale(_write(story, rng), answer) for _ in range(self.num_rationales)
            ]
            yield Problem(f"arithmetic-{number - 1:06d}", question, answer, texts)


def _tell(rng: random.Random, num_steps: int, source: ArithmeticSource) -> _Story:
    pronoun = rng.choice(("She", "He"))
    he, him = _PRONOUNS[pronoun]
    start = value = rng.randint(3, source.max_number // 2)
    steps: list[_Step] = []
    for _ in range(num_steps):
        operator = rng.choice([op for op in _EVENTS if _operands(op, value, source)])
        operand = rng.choice(_operands(operator, value, source))
        told, named = rng.choice(_EVENTS[operator])
        after = {
            "+": value + operand,
            "-": value - operand,
            "*": value * operand,
            "/": value // operand,
        }[operator]
        words = {"k": operand, "He": pronoun, "he": he, "him": him}
        steps.append(
            _Step(operator, operand, value, after, told.format(**words), named.format(**words))
        )
        value = after
    return _Story(rng.choice(_NAMES[pronoun]), pronoun, rng.choice(_ITEMS), start, tuple(steps))


def _operands(operator: str, value: int, source: ArithmeticSource) -> list[int]:
    """The operands that keep the result an integer between 2 and `max_number`."""
    largest = source.max_number
    match operator:
        case "+":
            return list(range(2, min(source.max_operand, largest - value) + 1))
        case "-":
            return list(range(2, min(source.max_operand, value - 2) + 1))
        case "*":
            return [
                factor for factor in range(2, source.max_factor + 1) if value * factor <= largest
            ]
        case _:
            return [
                k for k in range(2, source.max_factor + 1) if value % k == 0 and value // k >= 2
            ]


def _question(story: _Story) -> str:
    told = " ".join(step.told for step in story.steps)
    question = f"How many {story.items} does {story.name} have now?"
    return f"{story.name} has {story.start} {story.items}. {told} {question}"


def _write(story: _Story, rng: random.Random) -> list[str]:
    """A rationale in a random wording: terse, plain or verbose, some with merged or extra steps."""
    wording = rng.choices((_terse, _plain, _verbose), weights=(40, 50, 10))[0]
    lines = [wording(story, step, rng) for step in story.steps]
    if rng.random() < 0.3:
        merged = rng.randrange(len(lines) - 1)
        lines[merged : merged + 2] = [
            f"{lines[merged].rstrip('.')}, then {_lower(lines[merged + 1])}"
        ]
    if wording is _verbose and rng.random() < 0.5:
        lines.insert(0, f"At first {story.name} has {story.start} {story.items}.")
    return lines


def _terse(story: _Story, step: _Step, rng: random.Random) -> str:
    return step.equation


def _plain(story: _Story, step: _Step, rng: random.Random) -> str:
    return f"After {step.named}: {step.equation}."


def _verbose(story: _Story, step: _Step, rng: random.Random) -> str:
    he = _PRONOUNS[story.pronoun][0]
    return rng.choice(
        (
            f"{story.pronoun} has {step.before}; after {step.named} {he} has {step.equation} {story.items}.",
            f"Now think of {step.named}: that makes {step.equation} {story.items}.",
            f"After {step.named}, {story.name} has {step.equation} {story.items}.",
        )
    )


def _lower(line: str) -> str:
    return line[0].lower() + line[1:]
