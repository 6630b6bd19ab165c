"""Text generation engines; every `*_engine` module is imported to register its engine.

A module imports its library (vLLM, transformers) only when the engine is opened.
"""

import importlib
import pkgutil

from cotpipe.engines.base import Engine, Generated, Model, Request, Sampling, engines

__all__ = ["Engine", "Generated", "Model", "Request", "Sampling", "engines"]

for _module in pkgutil.iter_modules(__path__, prefix=f"{__name__}."):
    if _module.name.endswith("_engine"):
        importlib.import_module(_module.name)
