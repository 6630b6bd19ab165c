"""Problem sources; every module of this package is imported to register its source.

A source is a recipe section with a `kind`.
"""

import importlib
import pkgutil
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from cotpipe.data.problems.source import Reading, Source, sources

__all__ = ["ProblemSource", "Reading", "Source", "sources"]

for _module in pkgutil.iter_modules(__path__, prefix=f"{__name__}."):
    importlib.import_module(_module.name)

if TYPE_CHECKING:
    ProblemSource = Source
else:
    _kinds = [sources.find(name) for name in sources.names()]
    ProblemSource = Annotated[reduce(or_, _kinds), Field(discriminator="kind")]
    """Any registered source, discriminated by `kind`."""
