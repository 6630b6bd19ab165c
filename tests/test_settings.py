"""Settings from the environment."""

import pytest

from cotpipe.errors import UserError
from cotpipe.settings import Settings


def test_a_value_that_is_not_possible_is_named_by_its_variable(monkeypatch):
    monkeypatch.setenv("COTPIPE_LEASE_SECONDS", "-1")
    with pytest.raises(UserError, match="^COTPIPE_LEASE_SECONDS: Input should be greater than 0$"):
        Settings()


def test_all_wrong_values_are_told_and_no_secret_is(monkeypatch):
    monkeypatch.setenv("COTPIPE_CACHE_GB", "much")
    monkeypatch.setenv("COTPIPE_ENGINE_BATCH", "0")
    monkeypatch.setenv("COTPIPE_SERVER_KEY", "hunter2")
    with pytest.raises(UserError) as told:
        Settings()
    assert "COTPIPE_CACHE_GB" in str(told.value)
    assert "COTPIPE_ENGINE_BATCH" in str(told.value)
    assert "hunter2" not in str(told.value)


def test_trackers_are_known_and_installed(monkeypatch):
    monkeypatch.setenv("COTPIPE_TRACKERS", "trackio, tracker")
    with pytest.raises(UserError, match="COTPIPE_TRACKERS: .*'mlflow'"):
        Settings()
    with monkeypatch.context() as patch:
        patch.setattr("cotpipe.settings.find_spec", lambda name: None)
        patch.setenv("COTPIPE_TRACKERS", "trackio,wandb")
        with pytest.raises(UserError, match="^COTPIPE_TRACKERS: trackio is not installed; pip"):
            Settings()
    monkeypatch.setenv("COTPIPE_TRACKERS", "trackio")
    assert Settings().trackers == ("trackio",)
