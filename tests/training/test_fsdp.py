"""Weights that two processes share out are gathered, merged, saved and put back whole."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed
from peft import LoraConfig, get_peft_model
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.multiprocessing.spawn import spawn
from transformers import AutoModelForCausalLM

from cotpipe.errors import UserError
from cotpipe.recipe.stages import Stage
from cotpipe.training.fsdp import gathered, sharding_arguments
from cotpipe.training.job import Job
from cotpipe.training.student import load_trained, merged_weights, save_trained


def student_with_adapters(student):
    model = AutoModelForCausalLM.from_pretrained(student)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    torch.manual_seed(5)
    for name, weight in adapted.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(weight, std=0.3)
    return adapted


def share_out_and_gather(rank: int, folder: str, student: str) -> None:
    """What each of two processes does; a failed assertion in one is raised in the test."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    expected = {name: one.detach() for name, one in merged_weights(student_with_adapters(student))}
    model = student_with_adapters(student)
    for layer in model.get_base_model().model.layers:
        fully_shard(layer)
    fully_shard(model)
    assert all(isinstance(weight, DTensor) for weight in model.parameters())
    found = gathered(merged_weights(model), is_kept=rank == 0)
    assert bool(found) == (rank == 0)
    if found:
        torch.testing.assert_close(found, expected)
    kept = Path(folder, "kept.safetensors")
    save_trained(model, kept, is_main=rank == 0)
    torch.distributed.barrier()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.zero_()
    load_trained(model, kept)
    found = gathered(merged_weights(model), is_kept=True)
    torch.testing.assert_close(found, expected)
    torch.distributed.destroy_process_group()


def test_two_processes_gather_merge_and_put_back(tmp_path, tiny_student):
    spawn(share_out_and_gather, (str(tmp_path), str(tiny_student)), nprocs=2)
    assert (tmp_path / "kept.safetensors").is_file()


@pytest.fixture
def job(tmp_path) -> Job:
    stage = Stage.model_validate(
        {"name": "s", "examples": {"task": "reconstruction"}, "trainer": {"kind": "sft"}}
    )
    return Job(
        stage=stage, answers="number", student=tmp_path, examples=tmp_path, output=tmp_path, work=tmp_path,
        seed=1, training_state_seconds=1, parallel="fsdp", precision="float32",
    )  # fmt: skip


def test_one_process_has_nothing_to_share_out(job, monkeypatch):
    monkeypatch.delitem(os.environ, "WORLD_SIZE", raising=False)
    assert sharding_arguments(job) == {}
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert sharding_arguments(job)["fsdp_config"]["fsdp_version"] == 2
    assert sharding_arguments(job.model_copy(update={"parallel": "ddp"})) == {}


def test_float16_is_not_shared_out(job, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UserError, match="does not train in float16, .*set COTPIPE_PARALLEL=ddp"):
        sharding_arguments(job.model_copy(update={"precision": "float16"}))
