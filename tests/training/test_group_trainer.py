"""Our GRPO trainer against TRL's on the same completions: same loss and gradients, less work."""

import copy

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from cotpipe.training.group_trainer import GroupTrainer

ROWS, GROUP, LENGTH = 12, 4, 6


def trainer_of(kind, student, folder, lora=None, **options):
    """A trainer that was started, so that a micro-batch can be given to it by hand."""
    settings = {
        "output_dir": str(folder), "bf16": False, "use_cpu": True, "per_device_train_batch_size": ROWS,
        "num_generations": GROUP, "max_completion_length": LENGTH, "report_to": [], "save_strategy": "no",
        "gradient_checkpointing": False, "disable_tqdm": True, "max_steps": 1, "learning_rate": 1e-4,
    }  # fmt: skip
    trainer = kind(
        model=AutoModelForCausalLM.from_pretrained(student, attn_implementation="eager"),
        reward_funcs=lambda completions, **_: [float(len(text)) for text in completions],
        args=GRPOConfig(**settings | options),
        train_dataset=Dataset.from_list([{"prompt": "How many?"}, {"prompt": "Two"}, {"prompt": "x"}]),
        processing_class=AutoTokenizer.from_pretrained(student, padding_side="left"),
        peft_config=lora,
    )  # fmt: skip
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    return trainer


def micro_batch(advantages: list[float]) -> dict:
    generator = torch.Generator().manual_seed(4)
    prompts = torch.randint(3, 200, (3, 7), generator=generator).repeat_interleave(GROUP, 0)
    prompt_mask = torch.ones_like(prompts)
    prompt_mask[GROUP : 2 * GROUP, :3] = 0
    completions = torch.randint(3, 200, (ROWS, LENGTH), generator=generator)
    lengths = torch.tensor([6, 2, 5, 3] * 3)
    mask = (torch.arange(LENGTH) < lengths[:, None]).long()
    return {
        "prompt_ids": prompts.masked_fill(prompt_mask == 0, 0), "prompt_mask": prompt_mask,
        "completion_ids": completions.masked_fill(mask == 0, 0), "completion_mask": mask,
        "advantages": torch.tensor(advantages), "num_items_in_batch": mask.sum(),
    }  # fmt: skip


def loss_and_gradients(trainer, inputs: dict) -> tuple[float, dict]:
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, copy.deepcopy(inputs))
    trainer.accelerator.backward(loss)
    gradients = {name: each.grad for name, each in trainer.model.named_parameters()}
    return loss.item(), {name: each for name, each in gradients.items() if each is not None}


def assert_as_in_trl(student, folder, inputs, **options) -> list[int]:
    """Loss and gradients are TRL's; returns how many tokens our model computed."""
    computed = []
    found = []
    for kind in (GRPOTrainer, GroupTrainer):
        trainer = trainer_of(kind, student, folder, **options)
        embedding = trainer.model.get_input_embeddings()
        embedding.register_forward_hook(
            lambda module, given, output: computed.append(given[0].numel())
        )
        loss, gradients = loss_and_gradients(trainer, inputs)
        found.append((torch.tensor(loss), gradients))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)
    return computed


ONE_GROUP = [0.0] * 4 + [1.0, -1.0, 0.5, 0.0] + [0.0] * 4


@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "dr_grpo", "bnpo", "cispo", "luspo"])
def test_rows_without_advantage_change_neither_loss_nor_gradient(tiny_student, tmp_path, loss_type):
    trl, ours = assert_as_in_trl(
        tiny_student, tmp_path, micro_batch(ONE_GROUP), loss_type=loss_type
    )
    assert trl == ROWS * (7 + LENGTH)
    everything = (6 + 3 + 6) + 3 * 16
    assert ours == (everything if loss_type == "bnpo" else 3 + 6 + 2 + 5)


def test_old_log_probabilities_of_skipped_rows_do_no_harm(tiny_student, tmp_path):
    inputs = micro_batch(ONE_GROUP)
    inputs["old_per_token_logps"] = torch.full((ROWS, LENGTH), -200.0)  # exp(200) is infinite
    inputs["old_per_token_logps"][GROUP : 2 * GROUP] = -5.0
    trainer = trainer_of(GroupTrainer, tiny_student, tmp_path)
    loss, gradients = loss_and_gradients(trainer, inputs)
    assert torch.isfinite(torch.tensor(loss))
    assert all(torch.isfinite(each).all() for each in gradients.values())


def test_adapters_are_trained_as_in_trl_and_write(tiny_student, tmp_path):
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], lora_dropout=0.0)
    assert_as_in_trl(tiny_student, tmp_path, micro_batch(ONE_GROUP), lora=lora)
    trainer = trainer_of(GroupTrainer, tiny_student, tmp_path, lora=lora, beta=0.1)
    trainer.train()
    (completions,) = trainer.rollouts().complete([[5, 6]], 2, 0, 1, 3)
    assert [len(tokens) <= 3 for tokens in completions] == [True, True]


def test_with_a_penalty_every_row_counts(tiny_student, tmp_path):
    inputs = micro_batch(ONE_GROUP)
    inputs["ref_per_token_logps"] = torch.full((ROWS, LENGTH), -5.0)
    _, ours = assert_as_in_trl(tiny_student, tmp_path, inputs, beta=0.1)
    assert ours == (6 + 3 + 6) + 3 * 16


def test_without_any_advantage_the_step_costs_one_token(tiny_student, tmp_path):
    inputs = micro_batch([0.0] * ROWS)
    _, ours = assert_as_in_trl(tiny_student, tmp_path, inputs)
    assert ours == 1


def test_entropy_is_that_of_the_rows_that_count(tiny_student, tmp_path):
    trainer = trainer_of(GroupTrainer, tiny_student, tmp_path)
    loss_and_gradients(trainer, micro_batch(ONE_GROUP))
    loss_and_gradients(trainer, micro_batch([0.0] * ROWS))
    entropies = torch.tensor(trainer._metrics["train"]["entropy"])
    assert 0 < entropies[0] <= torch.tensor(259.0).log()
    assert entropies[1].isnan()


def test_a_whole_step_writes_and_trains(tiny_student, tmp_path):
    trainer = trainer_of(GroupTrainer, tiny_student, tmp_path, num_iterations=2, max_steps=2)
    before = [each.clone() for each in trainer.model.parameters()]
    trainer.train()
    assert any(
        not torch.equal(each, old)
        for each, old in zip(trainer.model.parameters(), before, strict=True)
    )


def test_a_group_stays_together_in_a_micro_batch(tiny_student, tmp_path):
    trainer = trainer_of(
        GroupTrainer, tiny_student, tmp_path, per_device_train_batch_size=GROUP, gradient_accumulation_steps=3,
    )  # fmt: skip
    prompts = []
    compute = trainer._compute_loss

    def watched(model, inputs):
        prompts.append(inputs["prompt_ids"].tolist())
        return compute(model, inputs)

    trainer._compute_loss = watched
    trainer.train()
    assert len(prompts) == 3
    assert all(len({tuple(row) for row in rows}) == 1 for rows in prompts)


def test_other_models_are_trained_as_in_trl(tiny_student, tmp_path, monkeypatch):
    monkeypatch.setattr("cotpipe.training.group_trainer.has_plain_attention", lambda config: False)
    _, ours = assert_as_in_trl(tiny_student, tmp_path, micro_batch(ONE_GROUP))
    assert ours == ROWS * (7 + LENGTH)
    trainer_of(GroupTrainer, tiny_student, tmp_path).train()
