"""Evaluating any model on a recipe's held-out problems: asks what was not asked before."""

from collections import defaultdict
from collections.abc import Callable, Sequence

from cotpipe.data.problems.stored import PROBLEMS
from cotpipe.data.rows import Answered, Lesson, read_rows
from cotpipe.engines.served import Served
from cotpipe.errors import UserError
from cotpipe.extensions import is_own
from cotpipe.recipe.model import Recipe
from cotpipe.report.figures import Evaluated, Figure, figures_of, require_same_questions
from cotpipe.runs.checkpoints import find_checkpoint
from cotpipe.steps import problems
from cotpipe.steps.evaluate_model import GREEDY, KIND, SAMPLED, Samples, step
from cotpipe.steps.held_out import held_out_lessons
from cotpipe.steps.runner import StepRunner
from cotpipe.steps.student import stored_checkpoint
from cotpipe.store.records import Reference


def evaluate_models(
    models: Sequence[str],
    runner: StepRunner,
    recipe: Recipe,
    samples: Samples | None = None,
    ks: Sequence[int] = (),
    refresh: bool = False,
) -> list[Figure]:
    """All figures of a model on the held-out problems, or of two models, compared.

    Args:
        models: As `find_checkpoint` takes them; the second may be `store:evaluation-...` instead.
        runner: Runs the steps in its store.
        recipe: The recipe.
        samples: How to sample the models; default: greedy answers alone.
        ks: The k of pass@k and maj@k; none without samples.
        refresh: Ask again what was asked before.

    Raises `UserError` for a model that cannot be asked, an empty split, and different problems.
    """
    asked, lessons = read_questions(runner, recipe)
    named = [_find(model, runner, recipe, samples) for model in models]  # before any is asked
    found = [
        one
        if isinstance(one, Evaluated)
        else _evaluate(model, one, runner, recipe, asked, samples, refresh)
        for model, one in zip(models, named, strict=True)
    ]
    if len(found) == 2:
        require_same_questions(*found)
    num_steps = steps_of_rationales(runner, asked, lessons)
    return figures_of(found, ks, same_answer(recipe), num_steps)


def read_questions(runner: StepRunner, recipe: Recipe) -> tuple[Reference, list[Lesson]]:
    """The problems of a recipe, made if the store does not have them, and those it holds out.

    Raises `UserError` if none is held out.
    """
    made = runner.run(problems.STEP, recipe, {})
    path = runner.store.path(made.record, PROBLEMS)
    return made.reference, held_out_lessons(path, recipe)


def _find(
    model: str, runner: StepRunner, recipe: Recipe, samples: Samples | None
) -> Evaluated | Reference | Served:
    earlier = stored_evaluation(model, runner, recipe)
    if earlier and samples:
        raise UserError(f"{model} has no samples; give its checkpoint, or leave out --samples")
    return earlier or find_checkpoint(model, runner, recipe)


def _evaluate(
    model: str,
    checkpoint: Reference | Served,
    runner: StepRunner,
    recipe: Recipe,
    asked: Reference,
    samples: Samples | None,
    refresh: bool,
) -> Evaluated:
    inputs = {"problems": asked}
    if isinstance(checkpoint, Reference):
        inputs[checkpoint.kind] = checkpoint
    made = runner.run(step(checkpoint), recipe, inputs, refresh)
    greedy = list(read_rows(runner.store.path(made.record, GREEDY), Answered))
    sampled: dict[str, list[Answered]] = defaultdict(list)
    if samples:
        made = runner.run(step(checkpoint, samples), recipe, inputs, refresh)
        for row in read_rows(runner.store.path(made.record, SAMPLED), Answered):
            sampled[row.problem_id].append(row)
    return Evaluated(model, greedy, sampled)


def stored_evaluation(name: str, runner: StepRunner, recipe: Recipe) -> Evaluated | None:
    """The greedy answers of an earlier evaluation, `store:evaluation-stage1/FINGERPRINT`.

    None if the name is none of these. Raises `UserError` if the store does not have it, or if answers
    could be longer or shorter in it than in the recipe's.
    """
    reference = stored_checkpoint(name, "MODEL")
    if reference is None or not reference.kind.startswith(KIND):
        return None
    record = runner.store.check(runner.store.latest(reference))
    if record is None or not any(file.path == GREEDY for file in record.files):
        raise UserError(
            f"{reference} is no greedy evaluation in the store "
            f"{runner.store.storage.address}; list them: cotpipe sql 'from evaluations'"
        )
    limits = record.fields["evaluation"]["max_new_tokens"], recipe.evaluation.max_new_tokens
    if limits[0] != limits[1]:
        raise UserError(
            f"the answers of {reference} have at most {limits[0]} tokens, those of this "
            f"recipe {limits[1]}; --set evaluation.max_new_tokens={limits[0]}"
        )
    if record.fields.get("problems.answers") != recipe.fields("problems.answers").get(
        "problems.answers"
    ):
        raise UserError(
            f"the answers of {reference} are judged as another kind than this recipe's "
            f"({recipe.problems.answers.kind}); set problems.answers.kind as in its run"
        )
    rows = list(read_rows(runner.store.path(record, GREEDY), Answered))
    return Evaluated(name, sorted(rows, key=lambda row: row.problem_id))


def steps_of_rationales(
    runner: StepRunner, asked: Reference, lessons: Sequence[Lesson]
) -> dict[str, int]:
    """The number of steps of a rationale of each problem, by its id; where there is none, nothing.

    The rationale is the source's own; if it has none, that of the teacher which a run has chosen.

    Args:
        runner: Has the store.
        asked: The problems.
        lessons: The held-out problems among them.
    """
    known = lessons
    if not any(lesson.teacher_steps for lesson in lessons):
        made = [
            record
            for record in runner.store.records("lessons", damaged=False)
            if record.inputs.get("problems") == asked.fingerprint
        ]
        path = runner.store.path(made[-1], "lessons.parquet") if made else None
        known = list(read_rows(path, Lesson)) if path else []
    return {one.problem_id: len(one.teacher_steps) for one in known if one.teacher_steps}


def same_answer(recipe: Recipe) -> Callable[[str, str, str], bool]:
    """Whether two final answers to a question are equal.

    Code of the user's own compares with gold answers alone.
    """
    if is_own(recipe.problems.answers.kind):
        return lambda one, other, _question: one == other
    return recipe.answers.compare
