"""The training step where its training is killed, or its states cannot be stored; the training itself is scripted."""

import shutil
from pathlib import Path

import pytest

from cotpipe.errors import TransientError, UserError
from cotpipe.progress import Silent
from cotpipe.recipe.files import load_recipe
from cotpipe.settings import Settings
from cotpipe.steps.curriculum import needed_for, steps_of
from cotpipe.steps.runner import StepRunner
from cotpipe.steps.step import reference_of
from cotpipe.store.artifacts import open_store
from cotpipe.training.endings import KilledError
from cotpipe.training.launch import Trained
from cotpipe.training.messages import Event, Rows, SavedTrainingState
from tests.helpers.flow_runs import TINY


class Told(Silent):
    """Keeps the metrics of every progress report."""

    def __init__(self) -> None:
        self.figures = []

    def __call__(self, done, total, figures=None):
        self.figures.append(figures)


class Stage1:
    """Stage 1 of a store, which has all that it reads."""

    def __init__(self, folder: Path, student: Path, *changes: str, **settings) -> None:
        self.recipe = load_recipe(TINY, [f"student.model={student}", *changes])
        self.steps = steps_of(self.recipe)
        self.settings = Settings(store=str(folder), **settings)
        self.told = Told()
        self.runner = StepRunner(open_store(self.settings), self.settings, self.told)
        self.found = {}
        for kind in needed_for("stage1-examples", self.steps):
            self.found[kind] = self.run_step(kind).reference
        self.found["student"] = self.run_step("student").reference
        self.folder = folder / str(
            reference_of(self.steps["stage1"], self.recipe, self.inputs("stage1"))
        )

    def inputs(self, kind):
        return {name: self.found[name] for name in self.steps[kind].inputs}

    def run_step(self, kind):
        return self.runner.run(self.steps[kind], self.recipe, self.inputs(kind))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, tiny_student) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    Stage1(folder, tiny_student)
    return folder


@pytest.fixture
def stage1(prepared, tmp_path, tiny_student) -> Stage1:
    return Stage1(Path(shutil.copytree(prepared, tmp_path / "store")), tiny_student)


def scripted(monkeypatch, *attempts):
    """Trainings that do what each of `attempts` does with the job; returns their micro-batches."""
    seen = []

    def train(job, num_processes, on_event, on_training_state, on_line):
        job.work.mkdir(parents=True)
        seen.append(job.stage.trainer.micro_batch)

        def reach(step, **figures):
            on_event(Event(step=step, num_steps=2, figures=figures or {"loss": 1.0}))

        attempts[len(seen) - 1](job, reach, on_training_state)
        shutil.copytree(job.student, job.output)
        finished = Event(step=2, num_steps=2, figures={"loss": 1.0})
        return Trained(rows=Rows(rows_kept=16), events=[finished])

    monkeypatch.setattr("cotpipe.steps.train.train", train)
    return seen


def killed_at(step):
    def attempt(job, reach, on_training_state):
        reach(step)
        raise KilledError("training of stage1 was killed")

    return attempt


def done(job, reach, on_training_state):
    reach(2)


def test_a_kill_by_the_kernel_without_progress_since_the_last_halves_the_micro_batch(
    stage1, monkeypatch
):
    seen = scripted(monkeypatch, killed_at(1), killed_at(1), done)
    assert stage1.run_step("stage1").record.counts["micro_batch"] == 2
    assert seen == [4, 4, 2]


def test_kills_of_a_training_that_gets_further_each_time_change_nothing(stage1, monkeypatch):
    seen = scripted(monkeypatch, killed_at(1), killed_at(2), done)
    assert stage1.run_step("stage1").record.counts["micro_batch"] == 4
    assert seen == [4, 4, 4]


def test_kills_of_one_row_at_a_time_say_what_takes_less_memory(stage1, monkeypatch):
    seen = scripted(monkeypatch, *[killed_at(0)] * 4)
    with pytest.raises(TransientError, match="1 rows per forward pass .*gradient_checkpointing"):
        stage1.run_step("stage1")
    assert seen == [4, 4, 2, 1]


def test_the_last_validation_is_shown_beside_the_steps_after_it(stage1, monkeypatch):
    def attempt(job, reach, on_training_state):
        reach(0, validation_accuracy=0.25)
        reach(1, loss=2.0)
        reach(2, loss=1.0)

    scripted(monkeypatch, attempt)
    stage1.run_step("stage1")
    assert stage1.told.figures[-2:] == [
        {"loss": 2.0, "validation_accuracy": 0.25},
        {"loss": 1.0, "validation_accuracy": 0.25},
    ]


def test_a_training_state_that_cannot_be_stored_ends_no_training(stage1, monkeypatch, caplog):
    stage1.folder.mkdir(parents=True)
    in_the_way = stage1.folder / "training-state"
    in_the_way.write_text("as a full disk, it takes no files")
    stored = []

    def attempt(job, reach, on_training_state):
        for step in (1, 2):
            state = job.work / f"checkpoint-{step}"
            state.mkdir(parents=True)
            (state / "weights").write_text("1")
            on_training_state(SavedTrainingState(step=step, folder=state))
            assert not state.exists()
            if step == 1:
                in_the_way.unlink()
        stored.extend(path.name for path in in_the_way.glob("*.json"))

    scripted(monkeypatch, attempt)
    assert not stage1.run_step("stage1").reused
    assert stored == ["00000002.json"]
    assert "training state of step 1 is not stored, the next one is tried again" in caplog.text


def test_processes_that_cannot_share_an_optimizer_step_are_refused_before_training(
    prepared, tmp_path, tiny_student, monkeypatch
):
    seen = scripted(monkeypatch)
    store = Path(shutil.copytree(prepared, tmp_path / "store"))
    with pytest.raises(UserError, match=r"8 rows, which 3 processes \(COTPIPE_NUM_PROCESSES\)"):
        Stage1(store, tiny_student, num_processes=3).run_step("stage1")
    assert seen == []


@pytest.mark.parametrize(
    ("change", "counted", "told"),
    [
        (
            "batch_size=4096",
            {"rows_kept": 0, "rows_dropped": 0, "rows_left_over": 16},
            "16 examples are too few for one optimizer step (4096); skipping training; lower "
            "stage1.trainer.batch_size, or give it more problems",
        ),
        (
            "max_length=20",
            {"rows_kept": 0, "rows_dropped": 16, "rows_left_over": 0},
            "0 examples (16 that are too long were dropped, the longest has LONGEST tokens) are too "
            "few for one optimizer step (8); skipping training; raise stage1.trainer.max_length, "
            "lower stage1.trainer.batch_size, or give it more problems",
        ),
    ],
)
def test_a_stage_with_too_few_rows_is_skipped_before_as_after_the_long_ones_are_dropped(
    prepared, tmp_path, tiny_student, caplog, change, counted, told
):
    store = Path(shutil.copytree(prepared, tmp_path / "store"))
    stage1 = Stage1(store, tiny_student, f"stage1.trainer.{change}")
    record = stage1.run_step("stage1").record
    assert record.counts["optimizer_steps"] == 0
    assert counted.items() <= record.counts.items()
    assert told.replace("LONGEST", str(record.counts["longest_row"])) in caplog.text
    start = next(store.glob("student/*/*/model/model.safetensors"))
    (passed_on,) = stage1.folder.glob("*/model/model.safetensors")
    assert passed_on.read_bytes() == start.read_bytes()
