"""What answers the requests of a step: an engine with a model, named or in the store."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from cotpipe.engines.base import Engine, Model
from cotpipe.engines.choice import open_engine
from cotpipe.settings import Settings
from cotpipe.store.artifacts import open_store
from cotpipe.store.records import Reference


@dataclass(frozen=True)
class Source:
    """An engine to open, on this machine or on another one."""

    engine: str  # `auto`, a registered engine, or a user function
    model: Model
    settings: Settings
    checkpoint: Reference | None = None  # the artifact whose folder `model` is the model

    @property
    def is_served(self) -> bool:
        """Whether servers answer, so that no machine of ours has to compute."""
        return self.engine == "openai"

    @contextmanager
    def open(self, tell: Callable[[str], None]) -> Iterator[Engine]:
        """Open the engine for the `with` block; see `open_engine`."""
        model = self.model
        store = open_store(self.settings, check=False)  # it holds on to what is read from it
        if self.checkpoint:
            folder = store.path(store.require(self.checkpoint), "model")
            model = replace(model, name=str(folder))
        with open_engine(self.engine, model, self.settings, tell) as engine:
            yield engine
