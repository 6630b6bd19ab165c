"""What the Prefect UI shows of a finished step: result table, report with its pictures, where things lie, lineage."""

import base64
import re
from pathlib import Path

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.events import emit_event

from cotpipe.records import Record, Reference
from cotpipe.report import TITLES
from cotpipe.rows import Result, read_rows
from cotpipe.steps.step import Outcome
from cotpipe.store import Store

_PICTURE = re.compile(r"!\[(.*?)\]\((\w+\.png)\)")
_LINKED = {"stage1": "model", "stage2": "model", "stage3": "model", "report": "report.md"}


def show_in_prefect(outcome: Outcome, store: Store) -> None:
    """Make the run's artifacts; a reused report is shown, too, for it is the result of this run as well."""
    record = outcome.record
    if not outcome.reused:
        _tell_lineage(record, store)
    if record.kind in _LINKED:
        location = store.storage.location(f"{record.folder}/{_LINKED[record.kind]}")
        create_link_artifact(location, link_text=location, key=record.kind, description=f"Where {record.kind} lies")
    if record.kind == "report":
        _show_report(record, store)


def _show_report(record: Record, store: Store) -> None:
    rows = [
        {
            "checkpoint": TITLES[row.checkpoint],
            "accuracy": f"{100 * row.accuracy:.1f} % [{100 * row.accuracy_low:.1f}, {100 * row.accuracy_high:.1f}]",
            "mean output tokens": f"{row.tokens:.1f} [{row.tokens_low:.1f}, {row.tokens_high:.1f}]",
            "valid format": f"{100 * row.valid_format:.1f} %",
            "cut off": f"{100 * row.truncated:.1f} %",
        }
        for row in read_rows(store.path(record, "results.parquet"), Result)
    ]
    create_table_artifact(rows, key="results", description="Held-out problems, greedy; 95 % intervals in brackets")
    folder = store.path(record, "report.md").parent
    text = (folder / "report.md").read_text(encoding="utf-8")
    for picture in {match[2] for match in _PICTURE.finditer(text)}:
        store.path(record, picture)
    create_markdown_artifact(
        _PICTURE.sub(lambda match: f"![{match[1]}]({_inline(folder / match[2])})", text),
        key="full-report",
        description="What each stage changed",
    )


def _inline(picture: Path) -> str:
    """A picture as text: the UI can read neither a disk nor S3."""
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"


def _tell_lineage(record: Record, store: Store) -> None:
    """Emit the event of Prefect's assets, this artifact was made of those; Prefect Cloud draws it, others list it."""
    inputs = [Reference(kind=kind, fingerprint=fingerprint) for kind, fingerprint in record.inputs.items()]
    emit_event(
        event="prefect.asset.materialization.succeeded",
        resource={"prefect.resource.id": _asset(record.reference, store), "prefect.resource.name": record.kind},
        related=[
            {"prefect.resource.id": _asset(reference, store), "prefect.resource.role": "asset"}
            for reference in (*inputs, *record.parts)
        ],
        payload={"counts": record.counts, "seconds": record.seconds},
    )


def _asset(reference: Reference, store: Store) -> str:
    location = store.storage.location(str(reference))
    return location if "://" in location else Path(location).absolute().as_uri()
