"""The number format that a machine computes in."""

import platform

import pytest
import torch

from cotpipe.errors import UserError
from cotpipe.hardware.devices import bfloat16_gain, fast_dtype, require_devices


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


GPUS = [
    ("A100", (8, 0), True, torch.bfloat16),
    ("T4", (7, 5), False, torch.float16),
    ("V100", (7, 0), False, torch.float16),
    ("P100", (6, 0), False, torch.float32),
]


@pytest.mark.parametrize(("name", "capability", "has_bfloat16", "expected"), GPUS)
def test_a_gpu_computes_in_the_format_it_has_units_for(
    monkeypatch, name, capability, has_bfloat16, expected
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bfloat16)
    assert fast_dtype() is expected, name
    assert fast_dtype("float16") is torch.float16
    assert fast_dtype("float32") is torch.float32


def test_float16_without_a_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="COTPIPE_PRECISION=float16 is for GPUs, .*set it to auto"):
        fast_dtype("float16")


def test_more_gpus_than_there_are_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    require_devices(2, "COTPIPE_NUM_PROCESSES")
    with pytest.raises(
        UserError, match="COTPIPE_NUM_PROCESSES asks for 3 GPUs, and there are 2 here; set it to 2"
    ):
        require_devices(3, "COTPIPE_NUM_PROCESSES")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    require_devices(3, "COTPIPE_NUM_PROCESSES")  # processes share a CPU
