"""The `cotpipe` command."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, cast

import httpx
import typer
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError
from rich.console import Console

from cotpipe.config import Recipe
from cotpipe.curriculum import StepName, needed_for
from cotpipe.errors import RunError, UserError
from cotpipe.plan import name_artifacts, plan_run
from cotpipe.recipes import describe, load_recipe, shipped_recipes
from cotpipe.records import Reference
from cotpipe.rewards import RewardName, RewardParts, recovery_reward, rewrite_reward
from cotpipe.runs import find_run, recipe_of
from cotpipe.settings import Settings
from cotpipe.store import open_store
from flows import store_cli
from flows.doctor import doctor
from flows.promote import promote
from flows.results import show_plan, show_results
from flows.store_cli import RunArgument, StoreOption
from flows.up import down, up

app = typer.Typer(
    help="Distil a teacher's chains of thought into a small student, in three stages.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_debug = False
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks and Prefect's log.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only print what is reused, what is to run, and why.")]


@app.callback()
def options(
    debug: DebugOption = False,
) -> None:
    """Options of every command."""
    global _debug
    _debug = debug
    # Read when Prefect is imported: quiet, and no reports to anybody.
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO" if debug else "CRITICAL")
    os.environ.setdefault("PREFECT_LOGGING_INTERNAL_LEVEL", "INFO" if debug else "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    if "PREFECT_API_URL" not in os.environ:
        os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "1")  # nobody waits for a server that Ctrl-C has ended
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if not debug:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@app.command()
def run(
    recipe: Annotated[str, typer.Option(help=f"A YAML file, or one of: {', '.join(shipped_recipes())}.")] = "demo",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a field: stage2.learning_rate=2e-6."),
    ] = None,
    store: StoreOption = None,
    refresh: Annotated[
        list[str] | None,
        typer.Option(metavar="STEP", help="Do a step again although the store has it, and all that follows from it."),
    ] = None,
    until: Annotated[str, typer.Option(metavar="STEP", help="End at a step; only what it needs is done.")] = "report",
    dry_run: DryRunOption = False,
    debug: DebugOption = False,
) -> None:
    """Run the whole curriculum. What the store already has is reused, so an interrupted run goes on where it was."""
    _begin(debug, store)
    _run(load_recipe(recipe, set_ or []), refresh or [], dry_run, until)


@app.command()
def rerun(
    run: RunArgument,
    from_: Annotated[
        str | None,
        typer.Option("--from", metavar="STEP", help="Do this step again although it is there, and all that follows."),
    ] = None,
    store: StoreOption = None,
    dry_run: DryRunOption = False,
    debug: DebugOption = False,
) -> None:
    """Run an earlier run's recipe again: what it finished is reused, what failed or is missing is done."""
    _begin(debug, store)
    earlier = find_run(open_store(Settings()).storage, run)
    _run(recipe_of(earlier), [from_] if from_ else [], dry_run)


def _begin(debug: bool, store: str | None) -> None:
    """What running commands take beside their recipe; the flow reads the store from the environment."""
    options(debug or _debug)
    if store is not None:
        os.environ["COTPIPE_STORE"] = store


def _run(recipe: Recipe, refresh: list[str], dry_run: bool, until: str = "report") -> None:
    opened = open_store(Settings())
    name_artifacts(recipe, opened, [*refresh, until])
    if dry_run:
        wide = None if sys.stdout.isatty() else 240  # a file has no edge to wrap at
        planned = [step for step in plan_run(recipe, opened, refresh) if step.kind in needed_for(until)]
        show_plan(recipe.name, planned, Console(width=wide))
        return
    # Prefect takes seconds to import; the mistakes above are told at once.
    from flows.curriculum import curriculum

    interrupted = _remember_interrupts()
    try:
        results = curriculum(recipe=recipe, until=cast(StepName, until), refresh=cast(Any, tuple(refresh)))
    except (KeyboardInterrupt, httpx.TransportError) as error:
        if interrupted:
            raise RunError("interrupted; finished steps are kept, run the same command again to go on") from None
        raise RunError(f"Prefect's server cannot be reached ({error}); check PREFECT_API_URL, or unset it") from error
    artifacts = {kind: Reference.model_validate(result["reference"]) for kind, result in results.items()}
    if until == "report":
        show_results(artifacts, opened, Console())
    else:
        Console().print(f"{until}: {opened.storage.location(str(artifacts[until]))}", soft_wrap=True, highlight=False)


def _remember_interrupts() -> list[int]:
    """A list that fills when Ctrl-C is pressed.

    A terminal sends Ctrl-C to Prefect's temporary server, too. The flow then dies of an unreachable server while it
    still handles the interrupt, and the interrupt itself is lost.
    """
    received: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    return received


class ScoreRow(BaseModel):
    """What `cotpipe score` needs of a row; other columns pass through."""

    model_config = ConfigDict(extra="allow")

    completion: str = Field(description="What the model wrote")
    answer: str = Field(description="The gold answer")
    teacher_steps: PositiveInt = Field(description="Steps of the teacher's rationale")
    teacher_words: PositiveInt = Field(description="Words of the teacher's rationale")


@app.command()
def score(
    source: Annotated[
        Path, typer.Argument(metavar="IN.jsonl", help="Rows with completion, answer, teacher_steps, teacher_words.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT.jsonl", help="The same rows with reward and its parts.")],
    reward: Annotated[RewardName, typer.Option(help="Stage 2's recovery or stage 3's rewrite reward.")],
    preset: Annotated[str, typer.Option(help="Formula: published.")] = "published",
) -> None:
    """Score completions offline, before GPU hours are spent on a reward."""
    if preset != "published":
        raise UserError(f"--preset {preset}: unknown; the only preset is 'published'")
    rows = list(_score_rows(source, reward))
    try:
        with target.open("w", encoding="utf-8") as output:
            output.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    except OSError as error:
        raise UserError(f"{target}: cannot be written: {error.strerror}") from error
    mean = sum(row["reward"] for row in rows) / len(rows)
    Console().print(f"{len(rows)} completions, mean reward {mean:.3f}, written to {target}")


def _score_rows(source: Path, reward: RewardName) -> Iterator[dict[str, Any]]:
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{source}: cannot be read: {error}") from error
    if not any(line.strip() for line in lines):
        raise UserError(f"{source}: the file has no rows")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = ScoreRow.model_validate_json(line)
        except ValidationError as error:
            raise UserError(f"{source}, line {number}: {describe(error)}") from error
        parts: RewardParts
        if reward is RewardName.RECOVERY:
            parts = recovery_reward(row.completion, row.answer, row.teacher_steps)
        else:
            parts = rewrite_reward(row.completion, row.answer, row.teacher_words)
        yield row.model_dump() | vars(parts)


_COMMANDS: tuple[Callable[..., None], ...] = (
    up, down, doctor, promote,
    store_cli.runs, store_cli.show, store_cli.diff, store_cli.sql, store_cli.verify, store_cli.gc,
)  # fmt: skip
for command in _COMMANDS:
    app.command()(command)


def main() -> None:
    """Run the command; a mistake or a failure is one line on standard error, a traceback only with `--debug`."""
    try:
        app()
    except (UserError, RunError) as error:
        if _debug:
            raise
        sys.stderr.write(f"cotpipe: {error}\n")
        sys.exit(2 if isinstance(error, UserError) else 1)


if __name__ == "__main__":
    main()
