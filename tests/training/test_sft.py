"""SFT computes what TRL's trainer computes, though its rows are packed."""

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from cotpipe.recipe.stages import Stage
from cotpipe.steps.examples import examples
from cotpipe.training.data import sft_row
from cotpipe.training.sft import TargetTrainer
from cotpipe.training.student import lora_config
from tests.helpers.lessons import TABLE
from tests.training.test_trainers import SFT


@pytest.mark.parametrize("micro_batch", [1, 4, 8])
@pytest.mark.parametrize("adapters", [False, True], ids=["all weights", "adapters"])
def test_losses_and_weights_are_those_of_trl(tmp_path, tiny_student, micro_batch, adapters):
    lora = {"rank": 2, "alpha": 4, "dropout": 0.0} if adapters else None
    stage = Stage.model_validate(
        {"name": "stage1", "examples": {"task": "reconstruction"}, "trainer": SFT | {"lora": lora}}
    )
    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    rows = [sft_row(example, tokenizer) for example in examples(TABLE, stage, 1)]
    tokens = [sum(row["length"] for row in rows[start : start + 8]) for start in (0, 8)]
    found = []
    for trainer_class, more in ((SFTTrainer, {}), (TargetTrainer, {"tokens": tokens})):
        torch.manual_seed(0)
        trainer = trainer_class(
            model=AutoModelForCausalLM.from_pretrained(
                tiny_student, dtype=torch.float32, attn_implementation="eager"
            ),
            args=SFTConfig(
                output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to=[], save_strategy="no",
                num_train_epochs=1, per_device_train_batch_size=micro_batch, logging_steps=1,
                gradient_accumulation_steps=8 // micro_batch, learning_rate=1e-3, disable_tqdm=True,
                train_sampling_strategy="sequential", completion_only_loss=True,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=lora_config(stage.trainer.lora),
            **more,
        )  # fmt: skip
        trainer.train()
        losses = [each["loss"] for each in trainer.state.log_history if "loss" in each]
        weights = {name: each.detach() for name, each in trainer.model.named_parameters()}
        found.append((losses, weights))
    assert len(found[0][0]) == 2
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-5)
