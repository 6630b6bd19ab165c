"""Which engine `auto` takes, and what is said where it is missing."""

import pytest

from cotpipe.errors import UserError


def test_vllm_that_is_not_installed_is_one_line(tmp_path, monkeypatch):
    from cotpipe.engines import choice, vllm_engine

    monkeypatch.setattr(vllm_engine, "has_vllm", lambda: False)
    with pytest.raises(
        UserError,
        match=r"vLLM is not installed; install it \(pip install 'cotpipe\[vllm\]'\)",
    ):
        choice.choose_engine("vllm")
    assert choice.choose_engine("auto") == ("transformers", "vLLM is not installed")
