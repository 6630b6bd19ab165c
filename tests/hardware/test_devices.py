"""The number format that a machine computes in."""

import platform

import pytest
import torch

from cotpipe.hardware.devices import bfloat16_gain, fast_dtype


@pytest.mark.skipif(
    platform.machine() != "x86_64" or torch.cpu._is_amx_tile_supported(),
    reason="only of x86 processors without AMX is it known beforehand",
)
def test_what_is_measured_is_what_the_instructions_promise(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    native = torch.cpu._is_avx512_bf16_supported()
    assert (bfloat16_gain() > 1.2) is native
    assert fast_dtype() is (torch.bfloat16 if native else torch.float32)


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_what_is_set_is_not_measured(monkeypatch, precision):
    monkeypatch.setattr("cotpipe.hardware.devices.bfloat16_gain", None)
    assert str(fast_dtype(precision)) == f"torch.{precision}"
