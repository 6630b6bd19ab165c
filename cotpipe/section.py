"""The base class of recipe sections, and their contribution to fingerprints."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from cotpipe.extensions import is_own, own_identity

# More than any run needs. A form or a slip of the finger beyond them would fill a disk or a memory.
NumRows = Annotated[int, Field(gt=0, le=10_000_000)]
NumTokens = Annotated[int, Field(gt=0, le=1_000_000)]
BatchSize = Annotated[int, Field(gt=0, le=100_000)]
NumRepeats = Annotated[int, Field(gt=0, le=1_000)]
"""Samples, epochs, steps of a rationale: what multiplies rows or tokens."""


class Section(BaseModel):
    """A section of the recipe: immutable, and rejects unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    named: ClassVar[frozenset[str]] = frozenset()
    """Fields that name a registered component or a user function."""
    added_later: ClassVar[frozenset[str]] = frozenset()
    """Fields added after artifacts existed; excluded from fingerprints at their default value."""

    def identity(self) -> dict[str, Any]:
        """The section's part in a fingerprint, as JSON; user functions count by their content."""
        plain = self.model_dump(mode="json")
        counted: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if name in self.added_later and value == field.get_default(call_default_factory=True):
                continue
            if name in self.named:
                counted[name] = own_identity(value)
            else:
                counted[name] = value.identity() if isinstance(value, Section) else plain[name]
        return counted

    def own_code(self) -> Iterator[str]:
        """The names of all user functions in this section and its subsections."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name in self.named and is_own(value):
                yield value
            for part in value if isinstance(value, tuple) else (value,):
                if isinstance(part, Section):
                    yield from part.own_code()
