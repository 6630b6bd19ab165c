"""Extension points: registries of named components, and loading of user functions.

User functions are named `path/to/file.py:function` or `package.module:function`; paths are relative
to the working directory of the run. Their source is part of fingerprints, so an edit produces new
artifacts.
"""

import functools
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar, cast

from cotpipe.errors import RunError, UserError

T = TypeVar("T")
D = TypeVar("D")  # preserves the type of a decorated object

_OWN = re.compile(
    r"(?P<place>[^:\s][^:]*\.py|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*)"
)


class Registry(Generic[T]):
    """The components of one type that a recipe can name.

    >>> shapes: Registry[Callable[[], str]] = Registry("shape")
    >>> @shapes.register("round")
    ... def round_shape() -> str:
    ...     return "o"
    >>> shapes.find("round")(), shapes.names()
    ('o', ['round'])
    """

    def __init__(self, noun: str, *reserved: str) -> None:
        """Create a registry.

        Args:
            noun: What is registered, for messages.
            reserved: Names that a recipe may give and that are resolved elsewhere.
        """
        self.noun = noun
        self.reserved = reserved
        self._found: dict[str, T] = {}

    def register(self, name: str) -> Callable[[D], D]:
        """Decorator that registers a component; raises `UserError` if the name is taken."""

        def keep(one: D) -> D:
            if name in self.reserved:
                raise UserError(
                    f"{_place(one)}: the {self.noun} {name!r} has a meaning of its own; rename it"
                )
            earlier = self._found.get(name)
            if earlier is not None and _place(earlier) != _place(one):
                raise UserError(
                    f"two {self.noun}s are named {name!r}: {_place(earlier)} and {_place(one)}; "
                    "rename one of them"
                )
            self._found[name] = cast(T, one)
            return one

        return keep

    def names(self) -> list[str]:
        """The registered names, in registration order."""
        return list(self._found)

    def choices(self) -> list[str]:
        """Every name that a recipe may give, apart from user functions."""
        return [*self.reserved, *self._found]

    def find(self, name: str) -> T:
        """Resolve a name. Raises `UserError` if it is unknown or cannot be loaded."""
        if name in self._found:
            return self._found[name]
        if is_own(name):
            return load_own(name)  # type: ignore[no-any-return]
        raise UserError(self._unknown(name))

    def require_known(self, name: str) -> str:
        """A pydantic validator: the name itself; raises `ValueError` for an unknown one."""
        if name not in self.choices() and not is_own(name):
            raise ValueError(self._unknown(name))
        return name

    def _unknown(self, name: str) -> str:
        return (
            f"unknown {self.noun} {name!r}; choose one of {', '.join(self.choices())}, or your own "
            "function: path/to/file.py:function"
        )


def is_own(name: str) -> bool:
    """Whether a name refers to a user function rather than a registered component.

    >>> is_own("rewards/mine.py:terse"), is_own("mine.rewards:terse"), is_own("published")
    (True, True, False)
    """
    return _OWN.fullmatch(name) is not None


def load_own(name: str) -> Any:
    """Load a user function, wrapped so that its exceptions become a `UserError` with its name.

    Raises `UserError` if the file is missing or fails to import, or the function is missing.
    """
    place = name.rpartition(":")[0]
    path = _source(place, name)
    state = path.stat()
    return _load(name, path, state.st_mtime_ns, state.st_size)


@functools.lru_cache
def _load(name: str, path: Path, modified: int, size: int) -> Any:
    """Cached until the file changes."""
    place, _, attribute = name.rpartition(":")
    found = getattr(_import(place, path, name), attribute, None)
    if not callable(found):
        raise UserError(f"{name}: {path} has no function {attribute!r}; check the recipe")
    return guarded(found, name)


def guarded(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Wrap a function so that its exceptions name it."""

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        with naming(name):
            return function(*arguments, **options)

    return call


def iterated(values: Iterable[T], name: str) -> Iterator[T]:
    """Iterate over a user function's result so that its exceptions name the function."""
    with naming(name):
        yield from values


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Turn what user code raises into a `UserError` that names the function."""
    try:
        yield
    except (UserError, RunError):
        raise
    except (Exception, SystemExit) as error:  # user code may raise anything
        said = " ".join(str(error).split())[:300]
        raise UserError(
            f"{name} raised {type(error).__name__}: {said}; "
            "fix the function (--debug shows the traceback)"
        ) from error


def returned(name: str, value: Any, wanted: type[T]) -> T:
    """Check the type of a user function's return value; raises `UserError` for another type."""
    if not isinstance(value, wanted):
        raise UserError(
            f"{name} returned {type(value).__name__}, not {wanted.__name__}; fix the function"
        )
    return value


def own_identity(name: str) -> str:
    """A name's part in a fingerprint; for a user function, its name and a hash of its file.

    >>> own_identity("published")
    'published'
    """
    if not is_own(name):
        return name
    place, _, attribute = name.rpartition(":")
    return f"{attribute} of {hashlib.sha256(_source(place, name).read_bytes()).hexdigest()}"


def _source(place: str, name: str) -> Path:
    """The source file of a user function; modules are located, not imported."""
    if place.endswith(".py"):
        path = Path(place).expanduser()
    else:
        try:
            spec = importlib.util.find_spec(place)
        except ModuleNotFoundError:
            spec = None
        except (Exception, SystemExit) as error:  # raised by a parent package
            raise _not_importable(name, place, error) from error
        if spec is None or spec.origin is None:
            raise UserError(f"{name}: there is no module {place!r}; install it, or name a file")
        path = Path(spec.origin)
    if not path.is_file():
        raise UserError(f"{name}: no such file: {path}; paths are relative to {Path.cwd()}")
    return path


def _import(place: str, path: Path, name: str) -> ModuleType:
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        # A changed file is a new module: one process may use two versions.
        content = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        key = f"cotpipe_own_{path.stem}_{content}"
        if key not in sys.modules:
            spec = importlib.util.spec_from_file_location(key, path)
            assert spec
            assert spec.loader
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            sys.modules[key] = module
        return sys.modules[key]
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # user code may raise anything
        raise _not_importable(name, path, error) from error


def _not_importable(name: str, place: str | Path, error: BaseException) -> UserError:
    said = " ".join(str(error).split())[:300]
    return UserError(f"{name}: {place} cannot be imported: {type(error).__name__}: {said}")


def _place(one: Any) -> str:
    code = inspect.unwrap(one) if callable(one) else type(one)
    try:
        return f"{inspect.getsourcefile(code)}:{getattr(code, '__qualname__', code)}"
    except TypeError:
        return repr(one)
