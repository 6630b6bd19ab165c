"""Markdown pages: templates filled in, in which whatever is not marked as Markdown is shown as text."""

from pathlib import Path
from typing import Any

from cotpipe.recipe.stages import title_of
from cotpipe.report.markdown import Markdown, code, escape, quote
from cotpipe.report.statistics import Change, Estimate
from cotpipe.report.summary import number, percent


def write_markdown(path: Path, template: str, **content: Any) -> None:
    """Write a Markdown page.

    Args:
        path: The file to write.
        template: A template of this package, without `.md.jinja`.
        content: What the template shows.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cotpipe.report", "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        autoescape=False,  # noqa: S701 - it knows HTML; `finalize` escapes for Markdown
        finalize=_shown,
    )
    environment.filters |= {
        "percent": _percent,
        "number": _number,
        "quote": quote,
        "code": code,
        "titled": title_of,
    }
    text = environment.get_template(f"{template}.md.jinja").render(**content)
    path.write_text(text, encoding="utf-8")


def _shown(value: Any) -> Any:
    """Every value of the template passes here: what is not marked as Markdown is shown as text."""
    return escape(value) if isinstance(value, str) and not isinstance(value, Markdown) else value


def _percent(estimate: Estimate | Change) -> Markdown:
    return Markdown(percent(estimate))


def _number(estimate: Estimate | Change) -> Markdown:
    return Markdown(number(estimate))
