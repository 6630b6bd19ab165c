"""What the trainers make of the examples: tokens in the loss, and rows that are left out."""

import pytest
from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import SFTConfig

from cotpipe.data.rows import Example
from cotpipe.errors import UserError
from cotpipe.recipe.stages import Stage
from cotpipe.steps.examples import examples
from cotpipe.steps.tokenizer import prepare_tokenizer
from cotpipe.training.data import sft_row, usable_rows
from cotpipe.training.messages import Rows
from cotpipe.training.sft import TargetTrainer
from tests.helpers.lessons import TABLE
from tests.helpers.tokenizers import SHAPES, save_model, tokenizer_of


def taught() -> list[Example]:
    stage = Stage.model_validate(
        {"name": "stage1", "examples": {"task": "reconstruction"}, "trainer": {"kind": "sft"}}
    )
    return list(examples(TABLE, stage, 1))


@pytest.mark.parametrize("name", ["Qwen2.5 base", "Mistral", "without a template"])
def test_the_loss_covers_the_whole_target_and_its_end(name, tmp_path):
    tokenizer = tokenizer_of(SHAPES[name])
    prepare_tokenizer(tokenizer, name)
    rows = taught()
    trainer = TargetTrainer(
        tokens=[1] * 10,
        model=AutoModelForCausalLM.from_pretrained(save_model(SHAPES[name], tmp_path)),
        args=SFTConfig(
            output_dir=str(tmp_path), use_cpu=True, bf16=False, max_length=1000, report_to=[],
            completion_only_loss=True,
        ),
        train_dataset=Dataset.from_list([sft_row(row, tokenizer) for row in rows]),
        processing_class=tokenizer,
    )  # fmt: skip
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(2)])
    for labels, row in zip(batch["labels"], rows[:2], strict=True):
        learnt = labels[labels != -100]
        assert learnt[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(learnt[:-1]).strip() == row.target


def test_a_checkpoint_whose_template_does_not_end_with_its_end_token_is_refused():
    tokenizer = tokenizer_of(SHAPES["Qwen2.5 base"])  # as published, before the student step
    with pytest.raises(UserError, match=r"problem id\d+: .*'<\|endoftext\|>', so .* never stop"):
        sft_row(taught()[0], tokenizer)


def test_every_row_that_is_not_trained_on_is_counted(monkeypatch):
    said: list[Rows] = []
    monkeypatch.setattr("cotpipe.training.data.write_line", said.append)
    lengths = [5] * 47 + [90] * 3
    kept = usable_rows([{"length": length} for length in lengths], 10, 32)
    assert len(kept) == 32
    counted = {"rows_dropped": 3, "rows_left_over": 15, "longest_row": 90}
    assert said == [Rows(rows_kept=32, **counted)]
