"""A stage that is validated: what it keeps, where it ends, and how it goes on after an interruption."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from cotpipe.data.rows import Example, Rollout, read_rows, write_rows
from cotpipe.errors import UserError
from cotpipe.recipe.stages import Stage
from cotpipe.steps.examples import bare_example, examples
from cotpipe.training.job import Job
from cotpipe.training.launch import train
from cotpipe.training.recording import RecordRollouts
from cotpipe.training.validation import Course
from tests.helpers.lessons import LESSONS, TABLE, Table
from tests.helpers.training import train_here

PAID = """
from cotpipe.rationale.rewards import RewardParts

def pays(completion, target, length):
    paid = float(len(completion) % 7)
    return RewardParts(paid, paid > 3, True, paid, 0.0, 0.0)

def equal(completion, target, length):
    return RewardParts(1.0, True, True, 1.0, 0.0, 0.0)

def infinite(completion, target, length):
    return RewardParts(float("inf"), True, True, float("inf"), 0.0, 0.0)
"""


def job_of(folder, student, *, reward="pays", **trainer) -> Job:
    folder.mkdir(exist_ok=True)
    (folder / "own.py").write_text(PAID)
    stage = Stage.model_validate({
        "name": "stage2",
        "examples": {"task": "completion", "num_epochs": 2, "pass_rates": {}},
        "trainer": {
            "kind": "grpo", "group_size": 4, "prompts_per_step": 2, "micro_batch": 4,
            "max_new_tokens": 8, "learning_rate": 0.003, "keep": "best",
            "reward": {"preset": f"{folder}/own.py:{reward}"},
            "validation": {"every": 2, "stops": False},
        } | trainer,
    })  # fmt: skip
    rows = [bare_example(lesson, "Solve.") for lesson in LESSONS[:8]]
    rated = [Example(**(vars(row) | {"pass_rate": 0.5})) for row in rows]
    write_rows(folder / "examples.parquet", Example, rated)
    write_rows(folder / "validation.parquet", Example, rows[:5])
    return Job(
        stage=stage, answers="number", student=student, examples=folder / "examples.parquet",
        validation=folder / "validation.parquet", output=folder / "model", work=folder / "work", seed=3,
        training_state_seconds=600,
    )  # fmt: skip


def sft_job(folder, student, **trainer) -> Job:
    """Three epochs of eight lessons, two optimizer steps each; five of them validate."""
    folder.mkdir(exist_ok=True)
    stage = Stage.model_validate({
        "name": "stage1",
        "examples": {"task": "reconstruction", "num_epochs": 3, "masks": {"first_share": 1}},
        "trainer": {
            "kind": "sft", "batch_size": 4, "micro_batch": 2, "max_length": 400, "learning_rate": 0.003,
            "keep": "best", "validation": {"every": 2, "stops": False},
        } | trainer,
    })  # fmt: skip
    write_rows(folder / "examples.parquet", Example, examples(Table(TABLE[:8]), stage, 1))
    rows = [bare_example(lesson, "Solve.") for lesson in LESSONS[:5]]
    write_rows(folder / "validation.parquet", Example, rows)
    return Job(
        stage=stage, answers="number", student=student, examples=folder / "examples.parquet",
        validation=folder / "validation.parquet", output=folder / "model", work=folder / "work", seed=3,
        training_state_seconds=600,
    )  # fmt: skip


def run(job, states=None):
    def keep(saved):
        if states is not None:
            shutil.copytree(saved.folder, states / str(saved.step))

    return train_here(job, on_training_state=keep)


def of_training(trained, name: str) -> list[float]:
    return [event.figures[name] for event in trained.events if name in event.figures]


def test_what_is_no_better_is_handed_back(tmp_path, tiny_student):
    trained = run(job_of(tmp_path / "a", tiny_student))
    assert [one.step for one in trained.validated] == [0, 2, 4, 6, 8]
    assert all(len(one.correct) == 5 for one in trained.validated)
    assert trained.events[-1].step == 8
    assert (trained.kept.kept_step == 0) == (not (tmp_path / "a" / "model").exists())


def test_training_ends_where_validation_no_longer_rises(tmp_path, tiny_student):
    # All answers of a random student are wrong and of full length: nothing ever gets better.
    validation = {"every": 1, "patience": 2, "stops": True}
    trained = run(job_of(tmp_path / "a", tiny_student, validation=validation, learning_rate=1e-6))
    assert trained.kept.kept_step == 0
    assert trained.events[-1].step == 2


def test_fine_tuning_keeps_the_state_that_answers_most(tmp_path, tiny_student):
    """All problems have the same rationale, which a tiny student soon writes."""
    said = {"target": "Step 1: So.\nAnswer: 4", "answer": "4"}
    validation = {"every": 10, "patience": 8}
    job = sft_job(tmp_path / "a", tiny_student, learning_rate=0.005, validation=validation)
    for file, copies in ((job.examples, 40), (tmp_path / "a" / "validation.parquet", 1)):
        rows = [Example(**(vars(row) | said)) for row in read_rows(file, Example)]
        write_rows(file, Example, rows * copies)
    trained = run(job)
    best = max(trained.validated, key=lambda one: one.accuracy)  # the first of several
    assert trained.validated[0].accuracy == 0 < best.accuracy
    assert trained.kept.kept_step == best.step
    assert trained.events[-1].step == best.step + 80 < 240  # eight more validations
    assert (tmp_path / "a" / "model" / "model.safetensors").exists()


def test_fine_tuning_that_ends_early_counts_the_tokens_that_it_trained_on(tmp_path, tiny_student):
    validation = {"every": 1, "patience": 2}
    whole = run(sft_job(tmp_path / "a", tiny_student))
    early = run(sft_job(tmp_path / "b", tiny_student, validation=validation, learning_rate=1e-6))
    assert early.events[-1].step == 2 < whole.events[-1].step
    tokens = of_training(whole, "trained_tokens")
    assert len(tokens) == 6
    assert of_training(early, "trained_tokens") == tokens[:2]


@pytest.mark.parametrize("make", [job_of, sft_job])
def test_a_stage_that_is_resumed_near_its_early_end_trains_no_step_more(
    tmp_path, tiny_student, make
):
    # All answers of a random student are wrong: nothing ever gets better.
    early = {"validation": {"every": 1, "patience": 3, "stops": True}, "learning_rate": 1e-6}
    job = make(tmp_path / "a", tiny_student, **early).model_copy(
        update={"training_state_seconds": 0}
    )
    whole = run(job, states=tmp_path)
    last = max(int(path.name) for path in tmp_path.iterdir() if path.name.isdigit())
    assert (whole.events[-1].step, last) == (3, 2)  # at the end, none is worth saving
    resumed = run(
        make(tmp_path / "b", tiny_student, **early).model_copy(update={"resume": tmp_path / "2"})
    )
    assert resumed.validated == whole.validated
    assert resumed.events[-1].step == 3


def test_training_does_not_end_while_masks_still_change(tmp_path, tiny_student):
    """Nothing is right at the start, when all that is trained on are questions with most steps shown."""
    job = sft_job(tmp_path / "a", tiny_student, validation={"every": 1, "patience": 1})
    masks = {"first_share": 0.2, "last_share": 1.0, "ramp": 0.5}
    changing = job.stage.model_dump() | {
        "examples": {"task": "reconstruction", "num_epochs": 3, "masks": masks}
    }
    trained = run(job.model_copy(update={"stage": Stage.model_validate(changing)}))
    assert trained.events[-1].step == 3


@pytest.mark.parametrize("lora", [None, {"rank": 2, "alpha": 4, "dropout": 0.0}])
@pytest.mark.parametrize(
    ("make", "trainer", "figure"), [(job_of, {"replacements": 4}, "reward"), (sft_job, {}, "loss")]
)
def test_a_resumed_stage_validates_and_keeps_as_an_uninterrupted_one(
    tmp_path, tiny_student, monkeypatch, make, trainer, figure, lora
):
    # All answers of a random student are wrong: make a state in the middle the best.
    monkeypatch.setattr(
        Course, "_is_kept", lambda self, position: self.validated[position].step == 4
    )
    trainer = trainer | {"learning_rate": 0.01, "lora": lora}
    job = make(tmp_path / "a", tiny_student, **trainer).model_copy(
        update={"training_state_seconds": 0}
    )
    whole = run(job, states=tmp_path)
    resumed_job = make(tmp_path / "b", tiny_student, **trainer).model_copy(
        update={"resume": tmp_path / "4"}
    )
    resumed = run(resumed_job)
    assert resumed.validated == whole.validated
    assert resumed.kept == whole.kept
    for name in (figure, "trained_tokens"):
        assert of_training(resumed, name) == of_training(whole, name)
    assert whole.kept.kept_step == 4
    one, two = (load_file(tmp_path / name / "model" / "model.safetensors") for name in "ab")
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(("replacements", "most"), [(2, 2), (100, 6)])  # six others are in the pool
def test_groups_that_teach_nothing_are_replaced_within_bounds(
    tmp_path, tiny_student, replacements, most
):
    job = job_of(tmp_path / "a", tiny_student, replacements=replacements, reward="equal")
    assert set(of_training(run(job), "replaced_prompts")) == {most}


def assert_recorded(job, trained, group_size=4, prompts=2):
    """Every sampled completion is a row, with what it was paid; those of a step come together."""
    rows = list(read_rows(job.rollouts, Rollout))
    steps = range(1, trained.events[-1].step + 1)
    of_step = [[row for row in rows if row.step == step] for step in steps]
    assert [row for step in of_step for row in step] == rows
    drawn = [group_size * (prompts + n) for n in of_training(trained, "replaced_prompts")]
    assert list(map(len, of_step)) == drawn
    tokens = [sum(row.num_tokens for row in step) for step in of_step]
    assert tokens == of_training(trained, "sampled_tokens")
    groups: dict[tuple[int, int], list[Rollout]] = {}
    for row in rows:
        groups.setdefault((row.step, row.example), []).append(row)
    assert {len(group) for group in groups.values()} == {group_size}
    asked = list(read_rows(job.examples, Example))
    for (_, number), group in groups.items():
        assert {row.problem_id for row in group} == {asked[number].problem_id}
        assert all(row.prompt == asked[number].prompt for row in group)
        assert not any(row.helped for row in group)  # all questions here are bare
        assert len({row.trained for row in group}) == 1
        assert all((row.advantage is None) == (not row.trained) for row in group)
    for step in of_step:
        assert sum(row.trained for row in step) == group_size * prompts
    return list(groups.values())


def test_every_rollout_is_kept_with_what_it_was_paid(tmp_path, tiny_student):
    job = job_of(tmp_path / "a", tiny_student, replacements=4)
    groups = assert_recorded(job, run(job))
    for row in (row for group in groups for row in group):
        assert row.reward == row.base == len(row.completion) % 7
        assert row.correct == (row.reward > 3)
        assert row.num_tokens == 8 or not row.truncated
    for group in groups:
        if group[0].trained and len({row.reward for row in group}) > 1:
            best = max(group, key=lambda row: row.reward)
            assert best.advantage == max(row.advantage for row in group) > 0
            assert sum(row.advantage for row in group) == pytest.approx(0, abs=1e-3)


def test_rollouts_that_wait_in_memory_are_bounded(tmp_path, tiny_student):
    job = job_of(tmp_path / "a", tiny_student)
    run(job)
    rows = list(read_rows(job.rollouts, Rollout))
    recording = RecordRollouts(job.model_copy(update={"work": tmp_path}), rows_per_part=10)
    for start in range(0, len(rows), 8):
        recording.add(rows[start : start + 8])
    recording.write(tmp_path / "all.parquet")
    assert [len(list(read_rows(part, Rollout))) for part in sorted(tmp_path.glob("r*-*"))] == [
        16
    ] * (len(rows) // 16)
    assert list(read_rows(tmp_path / "all.parquet", Rollout)) == rows


def test_a_reward_that_is_not_finite_ends_the_stage(tmp_path, tiny_student):
    with pytest.raises(UserError, match="infinite returned the reward inf, which is not a finite"):
        run(job_of(tmp_path / "a", tiny_student, reward="infinite"))


def test_two_processes_draw_from_one_pool_and_validate_together(tmp_path, tiny_student):
    job = job_of(tmp_path / "a", tiny_student, replacements=4, micro_batch=2)
    quiet = {"on_event": print, "on_training_state": print, "on_line": print}
    write_rows(
        tmp_path / "a" / "validation.parquet",
        Example,
        list(read_rows(job.work.parent / "validation.parquet", Example))[:1],
    )
    few = train(job.model_copy(update={"work": tmp_path / "w"}), 2, **quiet)
    assert {len(one.correct) for one in few.validated} == {1}  # fewer problems than processes


def test_two_processes_keep_the_pool_equal(tmp_path, tiny_student):
    job = job_of(tmp_path / "a", tiny_student, replacements=4, micro_batch=2)
    quiet = {"on_event": print, "on_training_state": print, "on_line": print}
    trained = train(job, 2, **quiet)
    assert [one.step for one in trained.validated] == [0, 2, 4, 6, 8]
    assert all(len(one.correct) == len(one.num_tokens) == 5 for one in trained.validated)
    assert of_training(trained, "reward")
    assert trained.kept is not None
    assert_recorded(job, trained)


def test_processes_that_would_divide_a_group_are_refused(tmp_path, tiny_student):
    job = job_of(tmp_path / "a", tiny_student, prompts_per_step=3, micro_batch=2)
    with pytest.raises(
        UserError, match=r"prompts_per_step \(3\) is not a multiple .*processes \(2"
    ):
        train(job, 2, on_event=print, on_training_state=print, on_line=print)


def test_problems_too_few_for_an_optimizer_step_are_counted_as_problems(tmp_path, tiny_student):
    job = job_of(tmp_path / "a", tiny_student)
    (row, *_) = read_rows(job.examples, Example)
    helped = Example(**(vars(row) | {"masked": []}))
    write_rows(job.examples, Example, [row, helped])  # two rows of one problem, two for a step
    trained = run(job)
    assert (trained.rows.rows_kept, trained.rows.rows_left_over, trained.events) == (0, 1, [])


def test_prompts_that_are_too_long_to_be_chosen_by_pass_rate_are_counted(tmp_path, tiny_student):
    trained = run(job_of(tmp_path / "a", tiny_student, max_prompt_length=1))
    assert (trained.rows.rows_dropped, trained.rows.rows_left_over) == (8, 0)
    assert trained.rows.longest_row > 1
