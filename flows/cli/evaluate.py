"""The command that evaluates any model on a recipe's held-out problems."""

import csv as comma_separated
import json as javascript
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cotpipe.errors import UserError
from cotpipe.recipe.files import load_recipe
from cotpipe.settings import Settings
from cotpipe.store.artifacts import open_store
from flows.cli.options import DebugOption, RecipeOption, SetOption, StoreOption
from flows.cli.progress import shown_progress
from flows.cli.terminal import Terminal

if TYPE_CHECKING:
    from cotpipe.report.figures import Figure
    from cotpipe.steps.evaluate_model import Samples

_WIDTH_IN_A_FILE = 120
MODELS = (
    "a directory, a hub id, wheel:PACKAGE, store:stage3/FINGERPRINT, `promoted`, or a server's "
    "address (http://HOST:8000/v1, with #NAME if it serves several)"
)
_Model = Annotated[
    str | None,
    typer.Argument(metavar="MODEL", help=f"The model: {MODELS}; default: the recipe's student."),
]
_Samples = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, max=1000, help="Also sample N answers per problem: pass@k, maj@k."
    ),
]
_Temperature = Annotated[
    float, typer.Option(metavar="T", max=2, help="Temperature of these samples.")
]
_Ks = Annotated[
    list[int] | None,
    typer.Option(
        "-k", metavar="K", help="A k of pass@k and maj@k; can be repeated; default: 1, 2, 4..N."
    ),
]
_Against = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL2",
        help="Compare with a second model, problem by problem, at equal length and at equal "
        "accuracy; also an evaluation of a run: store:evaluation-stage1/FINGERPRINT.",
    ),
]

_LmEval = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Only write the problems there, as a task of lm-evaluation-harness with the model's "
        "prompts: for an outside judge.",
    ),
]


def evaluate(
    model: _Model = None,
    recipe: RecipeOption = "demo",
    set_: SetOption = None,
    store: StoreOption = None,
    samples: _Samples = None,
    temperature: _Temperature = 0.7,
    k: _Ks = None,
    against: _Against = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Ask again what was asked before.")
    ] = False,
    lm_eval: _LmEval = None,
    csv: Annotated[bool, typer.Option("--csv", help="Write CSV to standard output.")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Write JSON Lines to standard output.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Evaluate any model on the held-out problems of a recipe, as a run does.

    What the store has is not asked again. Intervals are those of 95 %.
    """
    if csv and json:
        raise UserError("evaluate: choose one of --csv and --json")
    if lm_eval and (samples or k or against or refresh or csv or json):
        raise UserError("--lm-eval: nothing is asked; leave out the options for figures")
    chosen = load_recipe(recipe, set_ or [])
    chosen.load_own_code()
    ks = _ks(samples, k)
    sampled = _sampled(samples, temperature)
    name = model or chosen.student.model
    from cotpipe.runs.evaluation import evaluate_models
    from cotpipe.runs.harness import write_harness_task
    from cotpipe.steps.runner import StepRunner
    from flows.cli.figures import show_figures

    settings = Settings()
    with shown_progress() as progress:
        runner = StepRunner(open_store(settings), settings, progress)
        if lm_eval:
            command = write_harness_task(lm_eval, name, runner, chosen)
        else:
            models = [name, against] if against else [name]
            figures = evaluate_models(models, runner, chosen, sampled, ks, refresh)
    if lm_eval:
        Terminal().print(command, soft_wrap=True)
    elif csv or json:
        _write(figures, as_csv=csv)
    else:
        show_figures(figures, Terminal(width=None if sys.stdout.isatty() else _WIDTH_IN_A_FILE))


def _sampled(samples: int | None, temperature: float) -> "Samples | None":
    from cotpipe.steps.evaluate_model import Samples

    if samples and temperature <= 0:
        raise UserError(
            "--temperature: greedy samples are all the same; set a temperature above 0, or leave out "
            "--samples"
        )
    return Samples(samples, temperature) if samples else None


def _ks(samples: int | None, chosen: list[int] | None) -> list[int]:
    """The k of pass@k and maj@k: those that are chosen, else the powers of 2 up to the samples."""
    if samples is None:
        if chosen:
            raise UserError("-k: pass@k needs samples; set --samples N, with N at least k")
        return []
    if chosen:
        for k in chosen:
            if not 1 <= k <= samples:
                raise UserError(f"-k {k}: k must be at least 1 and at most --samples ({samples})")
        return sorted(set(chosen))
    return sorted({2**power for power in range(samples.bit_length())} | {samples})


def _write(figures: Sequence["Figure"], as_csv: bool) -> None:
    rows = [asdict(figure) for figure in figures]
    if as_csv:
        names = [field.name for field in fields(figures[0])]
        writer = comma_separated.DictWriter(sys.stdout, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        sys.stdout.writelines(javascript.dumps(row, ensure_ascii=False) + "\n" for row in rows)
