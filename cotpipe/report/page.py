"""Pages in one file: templates filled in, with their styles and script inside and nothing to load."""

import base64
import hashlib
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

from cotpipe.report.plain import visible

_TEMPLATES = "templates"


def write_page(path: Path, template: str, **content: Any) -> None:
    """Write an HTML page.

    Texts are shown as they are: markup in them is escaped, control characters are written out. In a
    script element, `tojson` keeps data from ending it. The page's policy allows no script but its own.

    Args:
        path: The file to write.
        template: A template that extends `page.html.jinja`, without its ending.
        content: What the template shows; `sections` are pairs of an id and a title for the navigation.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cotpipe.report", _TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
        finalize=_shown,
    )
    script = _text("page.js")
    text = environment.get_template(f"{template}.html.jinja").render(
        style=Markup(_text("page.css")),  # noqa: S704 - ours
        script=Markup(script),  # noqa: S704 - ours
        script_hash=Markup(f"'sha256-{_sha256(script)}'"),  # noqa: S704 - base64
        **content,
    )
    path.write_text(text, encoding="utf-8")


def _text(name: str) -> str:
    return resources.files("cotpipe.report").joinpath(_TEMPLATES, name).read_text(encoding="utf-8")


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _shown(value: Any) -> Any:
    """Every value of a template passes here: what is not marked as HTML is shown as text."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
