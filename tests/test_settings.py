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


@pytest.mark.parametrize("address", ["auto", "head", "http://head:8265", "head:6379/x", ""])
def test_what_is_no_address_of_a_ray_head_is_told(monkeypatch, address):
    monkeypatch.setenv("COTPIPE_RAY_ADDRESS", address)
    with pytest.raises(
        UserError, match="^COTPIPE_RAY_ADDRESS: '.*' is not the address of a Ray head"
    ):
        Settings()


@pytest.mark.parametrize("address", ["head:6379", "10.0.0.1:6379", "ray://head.example.org:10001"])
def test_a_ray_head_has_a_host_and_a_port(monkeypatch, address):
    monkeypatch.setenv("COTPIPE_RAY_ADDRESS", address)
    assert Settings().ray_address == address
