"""Where problems come from."""

from collections.abc import Iterator

from cotpipe.config import ArithmeticSource, FileSource, GymSource, HubSource
from cotpipe.problems.arithmetic import arithmetic_problems
from cotpipe.problems.sources import file_problems, gym_problems, hub_problems
from cotpipe.rows import Problem, Reject


def read_problems(
    source: ArithmeticSource | GymSource | FileSource | HubSource, seed: int
) -> Iterator[Problem | Reject]:
    """The problems of a source, and a `Reject` for every row of it that cannot be one."""
    if isinstance(source, ArithmeticSource):
        return arithmetic_problems(source, seed)
    if isinstance(source, GymSource):
        return gym_problems(source, seed)
    if isinstance(source, FileSource):
        return file_problems(source)
    return hub_problems(source)
