"""The number format that a machine computes in."""

import platform

import pytest
import torch

from cotpipe.hardware.devices import bfloat16_gain, fast_dtype


@pytest.mark.skipif(
    platform.machine() != "x86_64" or torch.cpu._is_amx_tile_supported(),
    reason="only of x86 processors without AMX is it known beforehand",
)
def test_what_is_measured_is_what_the_instructions_promise(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("COTPIPE_CACHE", str(tmp_path))
    bfloat16_gain.cache_clear()
    native = torch.cpu._is_avx512_bf16_supported()
    assert (bfloat16_gain() > 1.2) is native
    assert fast_dtype() is (torch.bfloat16 if native else torch.float32)


@pytest.fixture
def unmeasured(tmp_path, monkeypatch):
    """A machine without the figure, on which every measurement finds another one."""
    found = iter([2.5, 0.4, 3.0])
    monkeypatch.setenv("COTPIPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("cotpipe.hardware.devices._measured_gain", lambda: next(found))
    bfloat16_gain.cache_clear()
    yield tmp_path / "cache"
    bfloat16_gain.cache_clear()


def test_a_machine_is_measured_once(unmeasured):
    assert bfloat16_gain() == 2.5
    bfloat16_gain.cache_clear()  # as another process
    assert bfloat16_gain() == 2.5
    assert fast_dtype() is torch.bfloat16


def test_the_process_that_measured_first_decides(unmeasured, monkeypatch):
    measured = "cotpipe.hardware.devices._measured_gain"

    def slower() -> float:
        monkeypatch.setattr(measured, lambda: 0.4)
        assert bfloat16_gain.__wrapped__() == 0.4  # the other process
        return 2.5

    monkeypatch.setattr(measured, slower)
    assert bfloat16_gain() == 0.4


def test_a_cache_that_cannot_be_written_is_told(unmeasured, caplog):
    unmeasured.write_text("a file in the way")
    assert bfloat16_gain() == 2.5
    assert "the faster number format is not kept" in caplog.text


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_what_is_set_is_not_measured(monkeypatch, precision):
    monkeypatch.setattr("cotpipe.hardware.devices.bfloat16_gain", None)
    assert str(fast_dtype(precision)) == f"torch.{precision}"
