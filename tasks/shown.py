"""Prefect UI artifacts of a finished step: result table, report, links, and lineage."""

import base64
import re
from pathlib import Path
from urllib.parse import quote

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.events import emit_event

from cotpipe.data.rows import Result, read_rows
from cotpipe.recipe.stages import title_of
from cotpipe.report.markdown import escape
from cotpipe.steps.runner import Outcome
from cotpipe.steps.step import Step
from cotpipe.store.artifacts import Store
from cotpipe.store.records import Record, Reference

_PICTURE = re.compile(r"^!\[(.*?)\]\((\w+\.png)\)$", re.MULTILINE)


def show_in_prefect(step: Step, outcome: Outcome, store: Store) -> None:
    """Create the UI artifacts; also for a reused report, as it is the result of this run too."""
    record = outcome.record
    if not outcome.reused:
        _emit_lineage(record, store)
    if step.shows:
        location = store.storage.location(f"{record.folder}/{step.shows}")
        create_link_artifact(
            quote(location, safe=":/"),
            link_text=escape(location),
            key=step.kind,
            description=f"Location of {step.kind}",
        )
    if step.verb == "report":
        _show_report(record, store)


def _show_report(record: Record, store: Store) -> None:
    rows = [
        {
            "checkpoint": title_of(row.checkpoint),
            "accuracy": f"{100 * row.accuracy:.1f} % [{100 * row.accuracy_low:.1f}, {100 * row.accuracy_high:.1f}]",
            "mean output tokens": f"{row.tokens:.1f} [{row.tokens_low:.1f}, {row.tokens_high:.1f}]",
            "valid format": f"{100 * row.valid_format:.1f} %",
            "cut off": f"{100 * row.truncated:.1f} %",
        }
        for row in read_rows(store.path(record, "results.parquet"), Result)
    ]
    create_table_artifact(
        rows,
        key="results",
        description="Greedy answers to held-out problems; 95 % intervals in brackets",
    )
    folder = store.path(record, "report.md").parent
    text = (folder / "report.md").read_text(encoding="utf-8")
    for picture in {match[2] for match in _PICTURE.finditer(text)}:
        store.path(record, picture)
    create_markdown_artifact(
        _PICTURE.sub(lambda match: f"![{match[1]}]({_inline(folder / match[2])})", text),
        key="full-report",
        description="The effect of each stage",
    )


def _inline(picture: Path) -> str:
    """A picture as a data URL: the UI can read neither local files nor S3."""
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"


def _emit_lineage(record: Record, store: Store) -> None:
    """Emit a Prefect asset event with the inputs; Prefect Cloud draws it, other servers list it."""
    inputs = [
        Reference(kind=kind, fingerprint=fingerprint) for kind, fingerprint in record.inputs.items()
    ]
    emit_event(
        event="prefect.asset.materialization.succeeded",
        resource={
            "prefect.resource.id": _asset(record.reference, store),
            "prefect.resource.name": record.kind,
        },
        related=[
            {"prefect.resource.id": _asset(reference, store), "prefect.resource.role": "asset"}
            for reference in (*inputs, *record.parts)
        ],
        payload={"counts": record.counts, "seconds": record.seconds},
    )


def _asset(reference: Reference, store: Store) -> str:
    location = store.storage.location(str(reference))
    return location if "://" in location else Path(location).absolute().as_uri()
