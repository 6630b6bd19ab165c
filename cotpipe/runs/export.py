"""Handing a student over: a plain Hugging Face folder with its model card and recipe."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from cotpipe.engines.base import end_tokens
from cotpipe.errors import UserError, first_line
from cotpipe.report.card import Base, Handed, write_card
from cotpipe.report.summary import summarise
from cotpipe.runs.answers import answers_of
from cotpipe.runs.checkpoints import PROMOTED
from cotpipe.runs.log import Run, find_run, recipe_of
from cotpipe.runs.promotion import read_registry
from cotpipe.steps import student
from cotpipe.store.artifacts import Store
from cotpipe.store.records import Record, Reference

_MODEL = "model"
_TRAINED = ("optimizer_steps", "kept_step")
"""Counts of a stage; where one of them is 0, it handed on the checkpoint that it started from."""
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
"""What makes a generation configuration invalid that does not sample."""


def export_student(store: Store, name: str, stage: str | None, folder: Path) -> str:
    """Write the student of a run to a folder that is new or empty; returns the stage's name.

    The folder is there as a whole or not at all.

    Args:
        store: The store.
        name: A run's id, a unique part of it, `last`, or `promoted`.
        stage: The stage whose checkpoint to write; default: the last one that the run has finished.
        folder: Where to.

    Raises `UserError` for a folder that has something in it, a run without that stage, and a
    checkpoint that is missing or damaged; `RunError` for one that is damaged on its way from S3.
    """
    _require_free(folder)
    run, checkpoint = _find(store, name, stage)
    handed = _handed(store, run, checkpoint)
    with _whole(folder) as written:
        shutil.copytree(
            store.path(checkpoint, _MODEL),
            written,
            copy_function=shutil.copyfile,
            dirs_exist_ok=True,
        )
        store.release(checkpoint)
        _decode_greedily(written)
        recipe = handed.recipe.model_dump(mode="json")
        (written / "recipe.yaml").write_text(
            yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )
        write_card(written / "README.md", handed)
    return handed.stage


def _find(store: Store, name: str, stage: str | None) -> tuple[Run, Record]:
    """The run and the checkpoint that are meant."""
    if name == PROMOTED:
        run, reference = _promoted(store, stage)
    else:
        run = find_run(store.storage, name)
        reference = _checkpoint(run, stage)
    record = store.check(reference)
    if record is None:
        raise UserError(
            f"{reference} of run {run.run_id} is not in the store {store.storage.address}, or is "
            f"damaged; make it with: cotpipe rerun {run.run_id}"
        )
    return run, record


def _promoted(store: Store, stage: str | None) -> tuple[Run, Reference]:
    promotion = read_registry(store.storage).promoted
    if promotion is None:
        raise UserError("nothing is promoted yet; promote a run: cotpipe promote RUN")
    if stage not in (None, promotion.checkpoint.kind):
        raise UserError(
            f"--stage {stage}: the promoted student is {promotion.checkpoint.kind} of run "
            f"{promotion.run_id}; give that run instead of `promoted`"
        )
    try:
        return find_run(store.storage, promotion.run_id), promotion.checkpoint
    except UserError as error:
        raise UserError(
            f"run {promotion.run_id}, which made the promoted student, is no longer in the store "
            f"{store.storage.address}, so its recipe is not known; promote another run, and let "
            "`cotpipe gc --keep-runs` keep more of them"
        ) from error


def _checkpoint(run: Run, stage: str | None) -> Reference:
    """The checkpoint of a stage; by default, of the last one that is finished."""
    stages = [one.name for one in recipe_of(run).stages]
    if stage is not None and stage not in stages:
        raise UserError(
            f"--stage {stage}: run {run.run_id} has no such stage; it has {', '.join(stages)}"
        )
    finished = [one for one in stages if one in run.steps]
    if not finished or stage not in (None, *finished):
        raise UserError(
            f"run {run.run_id} ({run.state}) has no checkpoint{f' of {stage}' if stage else ''} yet; "
            f"finish it with: cotpipe rerun {run.run_id}"
        )
    return run.references[stage or finished[-1]]


def _handed(store: Store, run: Run, checkpoint: Record) -> Handed:
    recipe = recipe_of(run)
    made = {kind: store.record(reference) for kind, reference in run.references.items()}
    counts = {kind: record.counts for kind, record in made.items() if record}
    ending = " problems"
    return Handed(
        recipe=recipe,
        stage=checkpoint.kind,
        checkpoint=checkpoint,
        base=_base(store, recipe.student.model, checkpoint),
        summaries=[summarise(name, rows) for name, rows in answers_of(run, store).items()],
        num_problems={
            name.removesuffix(ending): count
            for name, count in counts.get("lessons", {}).items()
            if name.endswith(ending)
        },
        handed_on=frozenset(
            stage.name
            for stage in recipe.stages
            if 0 in (counts.get(stage.name, {}).get(name) for name in _TRAINED)
        ),
        run_id=run.run_id,
        git_commit=run.git_commit,
        artifacts={kind: run.artifacts[kind] for kind in run.steps},
    )


def _base(store: Store, model: str, checkpoint: Record) -> Base:
    """The model that all training began from, also if the recipe's student is another's checkpoint."""
    record: Record | None = checkpoint
    while record and not (record.kind == student.STEP.kind and not record.parts):
        above = record.parts if record.kind == student.STEP.kind else _starts(record)
        record = store.record(next(iter(above)))
    fields = record.fields.get("student", {}) if record else {}
    known = None if model.startswith(student.STORE) else model
    return Base(name=known or fields.get("model"), on_hub=bool(fields))


def _starts(record: Record) -> Iterator[Reference]:
    """The checkpoint that a stage started from is its first input."""
    return (
        Reference(kind=kind, fingerprint=fingerprint) for kind, fingerprint in record.inputs.items()
    )


def _decode_greedily(folder: Path) -> None:
    """Write a generation configuration that does not sample, and ends at every end token."""
    from transformers import AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(folder)
    generation = GenerationConfig.from_pretrained(folder)
    generation.update(do_sample=False, **dict.fromkeys(_SAMPLING))
    generation.eos_token_id = sorted(end_tokens(generation, tokenizer))
    if generation.pad_token_id is None:
        generation.pad_token_id = tokenizer.pad_token_id
    generation._from_model_config = False  # else transformers may take it for a derived one
    generation.save_pretrained(folder)


def _require_free(folder: Path) -> None:
    try:
        if any(folder.iterdir()):
            raise UserError(f"{folder} is not empty; name a folder that is not there yet")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be a folder for the student: {error.strerror}"
        ) from error


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder beside, which takes the place of `folder` once everything is written."""
    folder = folder.absolute()
    beside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        beside.mkdir(parents=True)
        yield beside
        beside.rename(folder)  # only if nothing has come to be there
    except OSError as error:
        why = error.strerror or first_line(error)
        raise UserError(f"{folder}: cannot be written: {why}") from error
    finally:  # also on an interrupt
        shutil.rmtree(beside, ignore_errors=True)
