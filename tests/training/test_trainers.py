"""The real trainers on a tiny student, in this process."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from cotpipe.data.rows import Example, read_rows, write_rows
from cotpipe.errors import RunError
from cotpipe.rationale.turns import prompt_tokens
from cotpipe.recipe.stages import Stage
from cotpipe.steps.examples import examples
from cotpipe.training.job import Job
from cotpipe.training.launch import train
from tests.helpers.lessons import TABLE, Table
from tests.helpers.training import train_here

LORA = {"rank": 2, "alpha": 4, "dropout": 0.0}


SFT = {"kind": "sft", "batch_size": 8, "micro_batch": 4, "max_length": 400}


def job_of(folder: Path, student: Path, task: str, trainer: dict, **section) -> Job:
    """A job on sixteen lessons (eight for GRPO)."""
    folder.mkdir(exist_ok=True)
    name = {"reconstruction": "stage1", "completion": "stage2", "rewriting": "stage3"}[task]
    stage = Stage.model_validate(
        {"name": name, "examples": {"task": task} | section, "trainer": trainer}
    )
    lessons = TABLE if trainer["kind"] == "sft" else Table(TABLE[:8])
    write_rows(folder / "examples.parquet", Example, examples(lessons, stage, 1))
    return Job(
        stage=stage, answers="number", student=student, examples=folder / "examples.parquet",
        output=folder / "model", work=folder / "work", seed=3, training_state_seconds=600,
    )  # fmt: skip


def prompt_tokens_of(job: Job) -> int:
    tokenizer = AutoTokenizer.from_pretrained(job.student)
    return sum(
        len(prompt_tokens(tokenizer, row.prompt)) for row in read_rows(job.examples, Example)
    )


def run(job):
    quiet = {"on_event": print, "on_training_state": print, "on_line": print}
    return train(job, 1, **quiet)


def changed(student: Path, trained: Path) -> bool:
    before, after = (
        load_file(student / "model.safetensors"),
        load_file(trained / "model.safetensors"),
    )
    assert before.keys() == after.keys(), "the checkpoint is not a plain one of the same model"
    return any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("lora", [None, LORA])
def test_stage1_learns(tmp_path, tiny_student, lora):
    trainer = SFT | {"learning_rate": 0.01, "lora": lora}
    job = job_of(tmp_path, tiny_student, "reconstruction", trainer, num_epochs=6)
    trained = train_here(job)
    assert (trained.rows.rows_kept, trained.rows.rows_dropped) == (96, 0)
    assert [event.step for event in trained.events] == list(range(1, 13))
    losses = [event.figures["loss"] for event in trained.events]
    assert sum(losses[-3:]) < sum(losses[:3])
    assert changed(tiny_student, job.output)
    AutoModelForCausalLM.from_pretrained(job.output)
    assert AutoTokenizer.from_pretrained(job.output).chat_template


def test_stage1_gives_the_same_weights_again(tmp_path, tiny_student):
    """Here as in a process of its own."""
    train_here(job_of(tmp_path / "a", tiny_student, "reconstruction", SFT))
    run(job_of(tmp_path / "b", tiny_student, "reconstruction", SFT))
    assert not changed(tmp_path / "a" / "model", tmp_path / "b" / "model")


@pytest.mark.parametrize("unit", ["words", "tokens"])
def test_stage2_and_3_run_grpo(tmp_path, tiny_student, unit):
    trainer = {
        "kind": "grpo", "group_size": 2, "prompts_per_step": 4, "micro_batch": 4, "max_new_tokens": 8,
        "learning_rate": 0.01, "kl": 0.05, "reward": {"length_unit": unit},
    }  # fmt: skip
    for task, section in (("completion", {"masks": {"amount": "half"}}), ("rewriting", {})):
        job = job_of(tmp_path / task, tiny_student, task, trainer, **section)
        events = train_here(job).events
        assert [event.step for event in events] == [1, 2]
        assert events[0].figures["reward"] == -2  # a random student is never right
        assert events[0].figures["completion_tokens"] <= 8
        sampled, trained = (
            sum(event.figures[name] for event in events)
            for name in ("sampled_tokens", "trained_tokens")
        )
        lengths = [8 * event.figures["completion_tokens"] for event in events]
        assert sampled == pytest.approx(sum(lengths))
        assert trained == sampled + prompt_tokens_of(job)  # once per group
        AutoModelForCausalLM.from_pretrained(job.output)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_groups_that_are_all_paid_alike_train_nothing(tmp_path, tiny_student, scale):
    """0.7 has no exact float32: the mean of seven is not quite 0.7, and its distance not quite 0."""
    (tmp_path / "mine.py").write_text(
        "from cotpipe.rationale.rewards import RewardParts\n"
        "def alike(completion, target, length):\n"
        "    return RewardParts(0.7, False, True, 0.7, 0.0, 0.0)\n"
    )
    trainer = {
        "kind": "grpo", "group_size": 7, "prompts_per_step": 4, "micro_batch": 28, "max_new_tokens": 8,
        "learning_rate": 0.01, "scale_rewards": scale,
        "reward": {"preset": f"{tmp_path / 'mine.py'}:alike"},
    }  # fmt: skip
    job = job_of(tmp_path, tiny_student, "completion", trainer, masks={"amount": "half"})
    events = train_here(job).events
    assert [event.figures["trained_tokens"] for event in events] == [0, 0]
    assert [event.figures["gradient_norm"] for event in events] == [0, 0]
    assert not changed(tiny_student, job.output)


@pytest.mark.parametrize(
    ("task", "trainer"),
    [
        ("reconstruction", SFT | {"max_length": 20}),
        ("rewriting", {"kind": "grpo", "prompts_per_step": 8, "micro_batch": 8, "max_prompt_length": 20}),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit_end_no_run(tmp_path, tiny_student, task, trainer):
    trained = train_here(job_of(tmp_path, tiny_student, task, trainer))
    assert (trained.rows.rows_kept, trained.events) == (0, [])
    assert trained.rows.rows_dropped > 0
    assert trained.rows.longest_row > 20


def test_a_process_that_dies_is_a_failed_run(tmp_path, tiny_student):
    job = job_of(tmp_path, tmp_path / "no-model", "reconstruction", SFT)
    with pytest.raises(RunError, match="training of stage1 ended with status 1: .*no-model"):
        run(job)


@pytest.mark.parametrize(("gain", "is_faster"), [(0.25, False), (1.1, False), (2.1, True)])
def test_where_bfloat16_is_not_faster_training_is_in_float32(
    tmp_path, tiny_student, monkeypatch, gain, is_faster
):
    from trl import GRPOConfig, SFTConfig

    from cotpipe.training.arguments import shared_arguments

    if torch.cuda.is_available():
        pytest.skip("the processor does not matter beside a GPU")
    monkeypatch.setattr("cotpipe.hardware.devices.bfloat16_gain", lambda: gain)
    arguments = shared_arguments(job_of(tmp_path, tiny_student, "reconstruction", SFT))
    assert SFTConfig(**arguments).bf16 is is_faster  # True by TRL's default
    del arguments["per_device_train_batch_size"]
    assert GRPOConfig(**arguments).bf16 is is_faster


@pytest.mark.parametrize(("precision", "is_rounded"), [("bfloat16", True), ("float32", False)])
def test_a_number_format_that_is_set_is_used_whatever_is_faster(
    tmp_path, tiny_student, monkeypatch, precision, is_rounded
):
    from cotpipe.training.arguments import shared_arguments

    monkeypatch.setattr(
        "cotpipe.hardware.devices.bfloat16_gain", lambda: 0.0 if is_rounded else 9.0
    )
    job = job_of(tmp_path, tiny_student, "reconstruction", SFT)
    arguments = shared_arguments(job.model_copy(update={"precision": precision}))
    assert arguments["bf16"] is is_rounded


def test_what_makes_cpus_fast_changes_nothing_but_the_time(tiny_student, monkeypatch):
    import trl.trainer.utils
    from trl.trainer.utils import add_fused_lm_head

    from cotpipe.training.cpu import project_in_small_tiles, score_targets_only

    if torch.cuda.is_available():
        pytest.skip("a GPU scores the targets only by itself")
    monkeypatch.setattr("cotpipe.training.cpu._TILE", 100)
    for name in ("_use_triton", "_CHUNKED_LOGPROB_CHUNK_SIZE"):  # put back at the end
        monkeypatch.setattr(trl.trainer.utils, name, getattr(trl.trainer.utils, name))
    labels = torch.randint(3, 200, (2, 12))
    labels[:, :7] = -100
    kernel = trl.trainer.utils._ChunkedLogProbFunction.apply
    losses, gradients, scored = [], [], []

    class Counting:
        @staticmethod
        def apply(hidden, *rest):
            scored.append(len(hidden))
            return kernel(hidden, *rest)

    monkeypatch.setattr(trl.trainer.utils, "_ChunkedLogProbFunction", Counting)
    for prepare in (lambda: None, score_targets_only, project_in_small_tiles):
        prepare()
        model = AutoModelForCausalLM.from_pretrained(tiny_student)
        add_fused_lm_head(model)
        output = model(input_ids=labels.clamp(min=3), labels=labels, fused_lm_head=True)
        output.loss.backward()
        losses.append(output.loss.item())
        gradients.append(model.model.embed_tokens.weight.grad)
    assert scored == [22, 10, 10]
    for other in (1, 2):
        assert losses[0] == pytest.approx(losses[other], rel=1e-5)
        torch.testing.assert_close(gradients[0], gradients[other], rtol=1e-4, atol=1e-6)
