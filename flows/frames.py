"""Freeing what a failed call holds: DuckDB reports every object that is alive at exit."""

import traceback


def free_frames(error: BaseException | None) -> None:
    """Clear the frames of an error and of those that led to it; Prefect keeps references to them."""
    while error:
        traceback.clear_frames(error.__traceback__)
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
