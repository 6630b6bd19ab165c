"""The pipeline as a list of steps: what each reads, what identifies its output, and which function makes it."""

from functools import partial
from pathlib import Path
from typing import Any, Literal

from cotpipe.config import FileSource, Recipe
from cotpipe.errors import UserError
from cotpipe.report import CHECKPOINTS
from cotpipe.steps import answer, prepare, report, student, teacher, train
from cotpipe.steps.step import Step
from cotpipe.storage import input_sha256

StepName = Literal[
    "problems", "student", "rationales", "lessons", "evaluation-base", "stage1-examples", "stage1", "evaluation-stage1",
    "stage2-examples", "stage2", "evaluation-stage2", "failures", "stage3-examples", "stage3", "evaluation-stage3",
    "report",
]  # fmt: skip
"""The names of all steps, in the order in which a run takes them."""


def _fields(*paths: str) -> Any:
    """A function that takes the named fields (`stage1.masks`) out of a recipe."""

    def read(recipe: Recipe) -> dict[str, Any]:
        values = {}
        for path in paths:
            value: Any = recipe.model_dump(mode="json")
            for key in path.split("."):
                value = value[key]
            values[path] = value
        return values

    return read


def _problem_fields(recipe: Recipe) -> dict[str, Any]:
    """A local file counts by its content, not by its path."""
    fields: dict[str, Any] = _fields("seed", "problems.source", "problems.max_rejected_share")(recipe)
    source = recipe.problems.source
    if isinstance(source, FileSource):
        for name in ("path", "test_path"):
            path = getattr(source, name)
            if path is not None:
                if not Path(path).is_file():
                    raise UserError(f"problems.source.{name}: no such file: {path}")
                fields["problems.source"][name] = input_sha256(Path(path)) + Path(path).suffix
    return fields


def _student_fields(recipe: Recipe) -> dict[str, Any]:
    identity = student.student_identity(recipe.student.model)
    return identity or _fields("student")(recipe)


def _evaluation(checkpoint: str) -> Step:
    model = "student" if checkpoint == "base" else checkpoint
    return Step(
        f"evaluation-{checkpoint}",
        1,
        (model, "lessons"),
        _fields("evaluation"),
        partial(answer.evaluate, checkpoint=model),
    )


def _training(stage: train.Stage, start: str) -> Step:
    run = partial(train.train_stage, stage=stage, start=start)
    return Step(stage, 1, (start, f"{stage}-examples"), _fields("seed", stage), run)


def _examples(stage: str, inputs: tuple[str, ...], run: Any, *fields: str) -> Step:
    shared = ("seed", f"{stage}.max_problems", f"{stage}.num_epochs")
    return Step(f"{stage}-examples", 1, inputs, _fields(*shared, *fields), run)


_JUDGED_BY = ("num_samples", "min_steps", "max_steps", "max_rejected_share")
_ASKED_WITH = (
    "system_prompt", "max_rounds", "restructure", "temperature", "top_p", "max_new_tokens", "stop"
)  # fmt: skip


def _teacher_fields(recipe: Recipe) -> dict[str, Any]:
    """Which engine asks is no part of it, and a data set's own rationales are asked for with nothing."""
    names = _JUDGED_BY if recipe.teacher.engine == "reference" else (*_JUDGED_BY, *_ASKED_WITH)
    fields: dict[str, Any] = _fields("seed", *(f"teacher.{name}" for name in names))(recipe)
    return fields | {"teacher": teacher.teacher_identity(recipe)}


STEPS = {
    step.kind: step
    for step in (
        Step("problems", 2, (), _problem_fields, prepare.collect_problems),
        Step("student", 1, (), _student_fields, student.fetch_student),
        Step(
            "rationales",
            1,
            ("problems",),
            _teacher_fields,
            teacher.collect_rationales,
        ),
        Step(
            "lessons",
            1,
            ("problems", "rationales"),
            _fields("seed", "problems.splits", "problems.near_duplicate", "teacher.choice"),
            prepare.plan_lessons,
        ),
        _examples("stage1", ("lessons",), train.write_stage1_examples, "stage1.masks"),
        _training("stage1", start="student"),
        _examples("stage2", ("lessons",), train.write_stage2_examples, "stage2.masks"),
        _training("stage2", start="stage1"),
        Step("failures", 1, ("stage2", "lessons"), _fields("seed", "mining"), answer.mine_failures),
        _examples(
            "stage3",
            ("lessons", "failures"),
            train.write_stage3_examples,
            "stage3.first_hint_share",
            "stage3.last_hint_share",
        ),
        _training("stage3", start="stage2"),
        *(_evaluation(checkpoint) for checkpoint in CHECKPOINTS),
        Step(
            "report",
            2,
            (*(f"evaluation-{name}" for name in CHECKPOINTS), *CHECKPOINTS[1:], "rationales"),
            lambda recipe: recipe.model_dump(mode="json"),
            report.report,
        ),
    )
}
"""Every step by the kind of its artifact, each after its inputs."""


def needed_for(kind: str) -> set[str]:
    """A step and all that it is made of.

    >>> sorted(needed_for("lessons"))
    ['lessons', 'problems', 'rationales']
    """
    return {kind}.union(*(needed_for(name) for name in STEPS[kind].inputs))
