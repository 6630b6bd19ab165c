"""cotpipe: distil a teacher's chains of thought into a small student, in three stages.

The public names for notebooks (docs/notebook.md) are loaded on first use, so `import cotpipe` is
fast, and none of them loads torch or Prefect.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cotpipe.rationale.answers import answers_match, extract_answer
    from cotpipe.rationale.format import parse_rationale
    from cotpipe.recipe.files import load_recipe
    from cotpipe.runs.catalog import query
    from cotpipe.runs.log import find_run
    from cotpipe.settings import Settings
    from cotpipe.store.artifacts import open_store
else:
    _DEFINED_IN = {
        "Settings": "cotpipe.settings",
        "answers_match": "cotpipe.rationale.answers",
        "extract_answer": "cotpipe.rationale.answers",
        "find_run": "cotpipe.runs.log",
        "load_recipe": "cotpipe.recipe.files",
        "open_store": "cotpipe.store.artifacts",
        "parse_rationale": "cotpipe.rationale.format",
        "query": "cotpipe.runs.catalog",
    }

    def __getattr__(name: str) -> Any:
        """Load a public name from the module that defines it."""
        if name not in _DEFINED_IN:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_DEFINED_IN[name]), name)


__all__ = [
    "Settings",
    "answers_match",
    "extract_answer",
    "find_run",
    "load_recipe",
    "open_store",
    "parse_rationale",
    "query",
]


def __dir__() -> list[str]:
    """Names for completion, including those not loaded yet."""
    return sorted({*globals(), *__all__})
