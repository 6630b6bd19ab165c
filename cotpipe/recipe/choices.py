"""JSON schema of fields with a fixed set of choices, as the UI form shows them."""

from typing import Any

from cotpipe.extensions import Registry


def as_choices(schema: dict[str, Any]) -> None:
    """Make the form offer the kinds of a section as choices.

    The form renders a discriminated union as a raw JSON box. User code is left out: anyone who can
    reach the form could otherwise choose which code runs.
    """
    kinds = schema.pop("oneOf")
    schema["anyOf"] = [kind for kind in kinds if "OwnSource" not in kind["$ref"]]
    del schema["discriminator"]


def names_of(registry: Registry[Any]) -> dict[str, Any]:
    """Schema of a field that names a registry entry: a choice among the built-in entries."""
    return {"enum": registry.choices()}
