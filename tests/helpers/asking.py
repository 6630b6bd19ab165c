"""A store with lessons and a student whose answers a scripted engine writes."""

from collections.abc import Sequence
from pathlib import Path

from cotpipe.data.rows import Lesson, write_rows
from cotpipe.progress import Silent
from cotpipe.recipe.model import Recipe
from cotpipe.settings import Settings
from cotpipe.steps.runner import StepRunner
from cotpipe.steps.step import Step, Work
from cotpipe.store.artifacts import open_store
from cotpipe.store.records import Reference


def runner_with(folder: Path, engine: str) -> StepRunner:
    """A runner on an empty store; `engine` is a source file with the function `opened`."""
    (folder / "engine.py").write_text(engine)
    settings = Settings(store=str(folder / "store"), engine=f"{folder}/engine.py:opened")
    return StepRunner(open_store(settings), settings, Silent())


def student_and_lessons(runner: StepRunner, lessons: Sequence[Lesson]) -> dict[str, Reference]:
    """Commit both artifacts; the student's model is an empty file."""

    def student(work: Work) -> dict[str, int]:
        (work.output / "model").mkdir()
        (work.output / "model" / "x").touch()
        return {}

    def table(work: Work) -> dict[str, int]:
        return {"kept": write_rows(work.output / "lessons.parquet", Lesson, lessons)}

    steps = {"student": student, "lessons": table}
    return {
        kind: runner.run(Step(kind, 1, (), lambda recipe: {}, run), Recipe(), {}).reference
        for kind, run in steps.items()
    }
