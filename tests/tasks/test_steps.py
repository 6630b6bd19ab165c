"""Steps that fail: what can heal is tried again, what cannot is not."""

import pytest
from prefect import flow

import tasks.steps
from cotpipe.errors import RunError, TransientError, UserError


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (TransientError("lost"), 4),
        (UserError("wrong"), 1),
        (RunError("broken"), 1),
        (ValueError("a bug"), 1),
    ],
)
def test_only_what_can_heal_is_tried_again(prefect, monkeypatch, error, attempts):
    tried = []

    def fail() -> None:
        tried.append(1)
        raise error

    step = tasks.steps.verb(name="fail", task_run_name="fail", retry_delay_seconds=0)(fail)

    @flow
    def failing() -> None:
        step()

    with pytest.raises(type(error)):
        failing()
    assert len(tried) == attempts


def test_waits_grow_and_differ():
    first, second = tasks.steps._waits(3), tasks.steps._waits(3)
    assert first != second
    for waits in (first, second):
        assert all(5 * 2**number <= wait <= 15 * 2**number for number, wait in enumerate(waits))
